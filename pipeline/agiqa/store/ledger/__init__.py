"""The ledger: append-only shelves of vectors that outlive every experiment (shelf.py)."""
