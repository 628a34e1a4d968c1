"""Data sets: official downloads, the user's own files and the demo, all as one images table."""

from agiqa.data.datasets.adapters import OFFICIAL

__all__ = ["OFFICIAL"]
