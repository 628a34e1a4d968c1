"""`agiqa serve`: a run behind a local page and a JSON API.

server       binds, loads, runs uvicorn; `connections` bounds what uvicorn does not
app          puts the parts together; `guards` and `under_way` stand before them
api, pages   what can be asked; `schemas` says in which form
uploads      what a client sends, kept under names of our own; `decoding` checks it in
             processes (`decoder`) that the kernel holds within limits
batching     one thread that owns the models, and the queue before it
answering    scores through the run, remembered; `explanations` beside it

Nothing is imported here, so that a decoder starts at once.
"""
