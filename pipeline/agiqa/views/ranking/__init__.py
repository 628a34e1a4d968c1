"""A scored folder as one HTML page, to look at, sort and filter.

Behind `agiqa score --html`. `thumbnails` makes the small pictures, `page` puts them and the scores
into `page.html.j2`; `page.js` draws what is in sight. The page makes no request (its
Content-Security-Policy forbids all), follows the reader's light or dark setting, and fits a phone.
"""

from agiqa.views.ranking.page import write_gallery

__all__ = ["write_gallery"]
