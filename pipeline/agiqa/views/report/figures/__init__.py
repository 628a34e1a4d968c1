"""Figures for the page, as Plotly's JSON: plain dicts of `data` and `layout`.

Colours are names of the page's CSS variables (`--series-1`), which `plots.js` resolves, so that one
figure serves the light and the dark page; it also adds fonts and grid. Points of images are not
written out again: a trace with `meta.generators` gets them from the page's image columns. Series
differ in marker or dashes as well as in colour. Nothing here imports plotly: tests hold the dicts
to it. In all of them `truth` is the MOS in the page's words.
"""
