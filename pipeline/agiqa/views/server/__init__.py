"""`agiqa serve`: a run behind a local page and a JSON API.

server       binds, loads, runs uvicorn; `connections` bounds what uvicorn does not
api          what can be asked, and the page; `schemas` says in which form, `guards` stand before it
service      takes images in, asks the models and gives answers back
decoding     checks uploads in processes (`decoder`) that the kernel holds within limits
worker       one thread that owns the models, the queue before it, scores remembered

Nothing is imported here, so that a decoder starts at once.
"""
