"""`report`: one evaluated run as one HTML page that needs nothing else, to read, send and archive.

The last stage. `results` reads the run, `tables` puts figures into words, `plots` draws,
`thumbnails` shows pictures, `page.html.j2` and `page.css` lay them out. The page makes no request
(it forbids itself to), follows the reader's light or dark setting, and fits a phone.
"""

from agiqa.report.page import write_report

__all__ = ["write_report"]
