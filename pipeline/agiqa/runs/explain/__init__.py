"""Why a score is what it is: quality maps, reasons from the cached answers, rated neighbours.

    explainer.py      `Explainer`: the three, for image files
    maps.py           maps, by the preset, and how they are drawn over their image
    reasons.py        the answers to the aspects, which of these may speak, and what they say
    rated_images.py   the run's data set; those of its images that look alike
    write.py          what `agiqa explain` writes into a run

Behind `agiqa explain` and `agiqa serve`; the report reads what `agiqa explain` wrote.
"""

from agiqa.runs.explain.explainer import Explainer as Explainer
from agiqa.runs.explain.maps import QualityMap as QualityMap
from agiqa.runs.explain.rated_images import Neighbour as Neighbour
from agiqa.runs.explain.reasons import AspectValidity as AspectValidity
from agiqa.runs.explain.reasons import Reason as Reason
from agiqa.runs.explain.write import explain_run as explain_run
