"""Data sets: one module for each official layout, all giving the same images table."""

from agiqa.data.datasets import (
    agiqa_1k,
    agiqa_3k,
    aigciqa2023,
    aigiqa_20k,
    evalmi_50k,
    evalmuse_40k,
    koniq_10k,
    spaq,
)
from agiqa.data.datasets.official import Adapter

OFFICIAL: dict[str, Adapter] = {
    module.FACTS.name: module
    for module in (
        agiqa_3k, aigiqa_20k, aigciqa2023, agiqa_1k, evalmuse_40k, evalmi_50k, koniq_10k, spaq,
    )
}  # fmt: skip
