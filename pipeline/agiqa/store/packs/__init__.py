"""Packs: one data set's vectors in `cache/`, for DVC to move and stage 2 to read (pack.py)."""
