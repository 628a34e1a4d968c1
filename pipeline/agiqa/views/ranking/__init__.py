"""A scored folder: ranked on the terminal, or as one HTML page to look at, sort and filter.

`terminal` prints, `score_files` writes; `page` fills `page.html.j2` for `agiqa score --html`, and
`page.js` draws what is in sight. The page makes no request, follows the reader's light or dark
setting, and fits a phone.
"""
