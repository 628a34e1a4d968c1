"""The leak audit: what the sides of any split share, down to near-identical pictures."""

from agiqa.data.leak_audit.overlaps import Audit, audit
from agiqa.data.leak_audit.perceptual import (
    NEAR,
    count_near,
    near_hashes,
    perceptual_hashes,
    with_near,
)

__all__ = ["NEAR", "Audit", "audit", "count_near", "near_hashes", "perceptual_hashes", "with_near"]
