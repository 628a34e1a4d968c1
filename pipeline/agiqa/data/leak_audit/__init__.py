"""The leak audit: what the sides of any split share, down to near-identical pictures."""

from agiqa.data.leak_audit.overlaps import NEAR, Audit, Pair, SideOverlap, audit
from agiqa.data.leak_audit.perceptual import NearHashes, near_hashes, perceptual_hashes

__all__ = [
    "NEAR",
    "Audit",
    "NearHashes",
    "Pair",
    "SideOverlap",
    "audit",
    "near_hashes",
    "perceptual_hashes",
]
