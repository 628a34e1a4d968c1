"""mPLUG-Owl2 (Ye et al., arXiv:2311.04257) on today's transformers, as the LMM of stage 1.

`network` is the model, `processing` what it is given, `loading` brings the public weights, and
`extractor` makes the semantic vectors.
"""


def register() -> None:
    """Let transformers' AutoConfig and AutoModel read mPLUG-Owl2 folders, without remote code."""
    from transformers import AutoConfig, AutoModel

    from agiqa.stage1.mplug_owl2.network import MplugOwl2Config, MplugOwl2Model

    AutoConfig.register(MplugOwl2Config.model_type, MplugOwl2Config, exist_ok=True)
    AutoModel.register(MplugOwl2Config, MplugOwl2Model, exist_ok=True)
