"""mPLUG-Owl2: images and text to the last hidden state, and with its head to answers.

A network of our own on transformers' LLaMA parts; parameter names are those of the public
checkpoint (`MAGAer13/mplug-owl2-llama2-7b`) after its leading `model.`. After Ye et al.,
arXiv:2311.04257, and the public implementation (github.com/X-PLUG/mPLUG-Owl, Apache-2.0).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding

from agiqa.stage1.mplug_owl2.blocks import run
from agiqa.stage1.mplug_owl2.configuration import MplugOwl2Config
from agiqa.stage1.mplug_owl2.language import DecoderLayer, KeyValue, Span, causal_mask
from agiqa.stage1.mplug_owl2.vision import VisionModel, VisualAbstractor

IMAGE_TOKEN = -200  # stands in the input ids where the image's tokens go
COMPUTED = r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
NOT_NEEDED = (r"lm_head\.weight", COMPUTED)
NO_IMAGE: Span = (0, 0)


@dataclass(frozen=True)
class Prefix:
    """Text before an image, already run: no image can change it, since attention is causal."""

    states: Tensor  # (1, P, D), after the final norm
    past: tuple[KeyValue, ...]  # each layer's keys and values, (1, heads, P, d)


class MplugOwl2Model(PreTrainedModel):
    """Vision tower, visual abstractor and modality-adaptive LLaMA.

    A block runs in the precision of its input (`blocks.run`), so float32 pixels and embeddings
    make a float32 pass whatever the weights are stored in.
    """

    config_class = MplugOwl2Config
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    _supports_sdpa = True
    _no_split_modules = ("VisionEmbeddings", "VisionLayer", "VisualAbstractor", "DecoderLayer")
    _keys_to_ignore_on_load_unexpected: tuple[str, ...] = NOT_NEEDED

    def __init__(self, config: MplugOwl2Config) -> None:
        super().__init__(config)
        kernel = self.config._attn_implementation
        self.vision_model = VisionModel(config.vision, kernel)
        self.visual_abstractor = VisualAbstractor(
            config.abstractor, config.vision.tokens, config.hidden_size, kernel
        )
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(config, kernel) for _ in range(config.num_hidden_layers)
        )
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config)
        self.post_init()

    def forward(self, input_ids: Tensor, pixel_values: Tensor) -> BaseModelOutput:
        """Run everything in one pass, the plain way.

        Args:
            input_ids: `(B, L)`; `IMAGE_TOKEN` once a row, at the same place in every row.
            pixel_values: normalised, `(B, 3, S, S)`.
        """
        columns = (input_ids == IMAGE_TOKEN).nonzero()[:, 1].unique()
        if len(columns) != 1 or int((input_ids == IMAGE_TOKEN).sum()) != len(input_ids):
            raise ValueError("expected one image a row, at the same place in every row")
        column = int(columns)
        visual = self.encode_images(pixel_values)
        sides = [
            self.embed(side, visual.dtype)
            for side in (input_ids[:, :column], input_ids[:, column + 1 :])
        ]
        embedded = torch.cat([sides[0], visual, sides[1]], dim=1)
        states = self.decode(embedded, (column, column + visual.shape[1]))
        return BaseModelOutput(last_hidden_state=states)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode normalised pixels `(B, 3, S, S)` into visual tokens `(B, V, D)`."""
        tokens: Tensor = run(self.visual_abstractor, self.vision_model(pixels))
        return tokens

    def embed(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Embed token ids `(B, L)`: `(B, L, D)`."""
        embedded: Tensor = self.embed_tokens(ids).to(dtype)
        return embedded

    def decode(self, embedded: Tensor, image: Span, prefix: Prefix | None = None) -> Tensor:
        """Run embeddings `(B, L, D)` to last hidden states `(B, L, D)` after the final norm.

        Args:
            embedded: text and visual tokens in order.
            image: where the visual tokens are in `embedded`.
            prefix: text that comes before `embedded` in every row.
        """
        past = prefix.past if prefix else (None,) * len(self.layers)
        rotary, mask = self._positions(embedded, prefix)
        hidden = embedded
        for layer, before in zip(self.layers, past, strict=True):
            hidden, _ = run(layer, hidden, image, rotary, mask, before)
        states: Tensor = run(self.norm, hidden)
        return states

    def run_prefix(self, ids: Tensor, dtype: torch.dtype) -> Prefix:
        """Run the text `(1, P)` before an image once, for all images."""
        hidden = self.embed(ids, dtype)
        rotary, mask = self._positions(hidden, None)
        past = []
        for layer in self.layers:
            hidden, kept = run(layer, hidden, NO_IMAGE, rotary, mask, None)
            past.append(kept)
        return Prefix(run(self.norm, hidden), tuple(past))

    def _positions(self, embedded: Tensor, prefix: Prefix | None) -> tuple[KeyValue, Tensor]:
        """Compute cosines and sines of the embeddings' positions, and the causal mask."""
        past = prefix.states.shape[1] if prefix else 0
        length = embedded.shape[1]
        positions = torch.arange(past, past + length, device=embedded.device)[None]
        return self.rotary_emb(embedded, positions), causal_mask(length, past, embedded)


class MplugOwl2WithHead(MplugOwl2Model):
    """The same with the head that scores the vocabulary behind a state."""

    _keys_to_ignore_on_load_unexpected = (COMPUTED,)

    def __init__(self, config: MplugOwl2Config) -> None:
        super().__init__(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def logits(self, states: Tensor) -> Tensor:
        """Score the vocabulary `(B, V)`, float32, behind states `(B, D)`."""
        scores: Tensor = run(self.lm_head, states)
        return scores.float()
