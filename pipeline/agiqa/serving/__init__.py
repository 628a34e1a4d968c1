"""`agiqa serve`: a run behind a local page and a JSON API.

server       binds, loads, runs uvicorn
app          puts the parts together; `guards` stand before them
api, pages   what can be asked; `schemas` says in which form
uploads      what a client sends, checked and kept under names of our own
batching     one thread that owns the models, and the queue before it
answering    scores through the run, remembered; `explanations` beside it
"""

from agiqa.serving.limits import Limits
from agiqa.serving.server import Serving, serve

__all__ = ["Limits", "Serving", "serve"]
