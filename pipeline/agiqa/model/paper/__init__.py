"""The paper's network (MA-AGIQA, arXiv:2404.17762), after github.com/wangpuyi/MA-AGIQA."""

from agiqa.model.paper.config import PaperConfig
from agiqa.model.paper.regressor import EXPERTS, SEMANTIC, PaperRegressor
from agiqa.model.paper.vit_sources import load_vit
from agiqa.model.paper.weights import load_reference_state, reference_name

__all__ = [
    "EXPERTS",
    "SEMANTIC",
    "PaperConfig",
    "PaperRegressor",
    "load_reference_state",
    "load_vit",
    "reference_name",
]
