"""The leak audit: what the sides of any split share, down to near-identical pictures."""

from agiqa.data.leak_audit.across import NEAR, Across, Audit, Pair, audit
from agiqa.data.leak_audit.near import NearHashes, near_hashes
from agiqa.data.leak_audit.perceptual import perceptual_hashes

__all__ = [
    "NEAR",
    "Across",
    "Audit",
    "NearHashes",
    "Pair",
    "audit",
    "near_hashes",
    "perceptual_hashes",
]
