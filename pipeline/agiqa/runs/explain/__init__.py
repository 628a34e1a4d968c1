"""Why a score is what it is: quality maps, reasons from the cached answers, rated neighbours.

    explainer.py      `Explainer`: the three, for image files
    maps.py           maps, by the preset
    quality_map.py    a map, and how it is drawn over its image
    aspects.py        reasons: the store of answers, the model for new images
    reasons.py        which aspects may speak, and what they say
    rated_images.py   the run's data set; those of its images that look alike
    write.py          what `agiqa explain` writes into a run

Behind `agiqa explain` and `agiqa serve`; the report reads what `agiqa explain` wrote.
"""

from agiqa.runs.explain.explainer import Explainer
from agiqa.runs.explain.quality_map import QualityMap
from agiqa.runs.explain.rated_images import Neighbour
from agiqa.runs.explain.reasons import AspectValidity, Reason
from agiqa.runs.explain.write import explain_run

__all__ = [
    "AspectValidity",
    "Explainer",
    "Neighbour",
    "QualityMap",
    "Reason",
    "explain_run",
]
