"""What report, ranking, tables and served page share: numbers, thumbnails, the page, its scripts.

number       how a figure is printed; `web/dom.js` says the same in the browser
thumbnails   small WebP pictures of image files
page         Jinja, the inlining of styles and scripts, and the policy that names their hashes
web/         theme.css; dom.js (elements, bars), gallery.js (filter, order, draw, open)
"""
