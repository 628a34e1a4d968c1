"""`report`: evaluated runs as one interactive HTML page that needs nothing else.

The last stage. `results` reads a run, `summaries` makes groups and bins of it, `figures` turns them
into Plotly's JSON. `content` gathers what is said and `page` fills `report.html.j2`, with a style
and scripts. The page makes no request (it forbids itself to), follows the reader's light or dark
setting, and fits a phone. `dvc_plots` writes the same figures for `dvc plots`.
"""

from agiqa.views.report.dvc_plots import write_plots
from agiqa.views.report.page import write_report

__all__ = ["write_plots", "write_report"]
