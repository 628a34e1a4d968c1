"""`agiqa serve`: a run behind a local page and a JSON API.

server       binds, loads, runs uvicorn; `connections` bounds what uvicorn does not
app          puts the parts together; `guards` and `under_way` stand before them
api, pages   what can be asked; `schemas` says in which form
service      takes images in (`uploads`), asks the models and gives answers back
decoding     checks images in processes (`decoder`) that the kernel holds within limits
worker       one thread that owns the models, the queue before it, scores remembered
explanations maps, reasons and neighbours beside the scores

Nothing is imported here, so that a decoder starts at once.
"""
