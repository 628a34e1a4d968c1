"""The paper's network (MA-AGIQA, arXiv:2404.17762), after github.com/wangpuyi/MA-AGIQA."""

from agiqa.stage2.paper.network.config import PaperConfig
from agiqa.stage2.paper.network.regressor import EXPERTS, SEMANTIC, NetworkOutput, PaperRegressor
from agiqa.stage2.paper.network.vit_sources import load_vit
from agiqa.stage2.paper.network.weights import load_reference_state, reference_name

__all__ = [
    "EXPERTS",
    "SEMANTIC",
    "NetworkOutput",
    "PaperConfig",
    "PaperRegressor",
    "load_reference_state",
    "load_vit",
    "reference_name",
]
