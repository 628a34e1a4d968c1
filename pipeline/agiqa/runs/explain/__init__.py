"""Why a score is what it is: quality maps, reasons from the cached answers, rated neighbours.

    explainer.py        `Explainer`: the three, for files or images in memory
    light_maps.py       maps of the preset light: leave_one_out.py, gradient.py, placing.py
    quality_map.py      a map; overlay.py draws it
    aspects.py          reasons: answers.py (the store), aspect_validity.py and residuals.py (which
                        aspects may speak), wording.py (what they say)
    neighbours.py       rated images that look alike
    rated.py, looks.py  the run's data set; vectors of the images to be explained
    explanations.py     what `agiqa explain` writes into a run

Behind `agiqa explain` and `agiqa serve`; the report reads what `agiqa explain` wrote.
"""

from agiqa.runs.explain.explainer import Explainer
from agiqa.runs.explain.explanations import Explanations, explain_run, read_explanations
from agiqa.runs.explain.quality_map import QualityMap
from agiqa.runs.explain.reason import AspectValidity, Neighbour, Reason

__all__ = [
    "AspectValidity",
    "Explainer",
    "Explanations",
    "Neighbour",
    "QualityMap",
    "Reason",
    "explain_run",
    "read_explanations",
]
