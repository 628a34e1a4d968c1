"""Why a score is what it is: quality maps, reasons from the cached answers, rated neighbours.

    quality_map.py   what each place does to the score, and its picture
    reason.py        what the other modules hand on: reasons, neighbours, validity
    explainer.py     `Explainer`: the three for files or images in memory

Behind `agiqa explain` and `agiqa serve`; the report reads what `agiqa explain` wrote.
"""

from agiqa.explaining.explainer import Explainer
from agiqa.explaining.quality_map import QualityMap
from agiqa.explaining.reason import AspectValidity, Neighbour, Reason

__all__ = ["AspectValidity", "Explainer", "Neighbour", "QualityMap", "Reason"]
