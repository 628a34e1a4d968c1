"""Pairs of 64-bit hashes that differ in few bits, among tens of thousands, in seconds.

All pairs are compared, in blocks: an exclusive or and NumPy's popcount over 512 hashes against all
later ones, so 20,000 images take 2·10⁸ operations of a few nanoseconds and 80 MiB. Equal hashes are
compared once, so a thousand copies of one picture cost nothing.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agiqa.core.errors import AgiqaError

BLOCK = 512
MOST_PAIRS = 5_000_000  # of distinct hashes; more says that the distance is too large


@dataclass(frozen=True)
class NearHashes:
    """Distinct hashes and which of them are near; rows of the data set point to them."""

    row: npt.NDArray[np.intp]  # (N,), the distinct hash of each row
    one: npt.NDArray[np.intp]  # (K,), pairs of distinct hashes, one < other
    other: npt.NDArray[np.intp]  # (K,)
    distance: npt.NDArray[np.uint8]  # (K,), bits that differ, at least 1


def near_hashes(hashes: npt.NDArray[np.uint64], distance: int) -> NearHashes:
    """All pairs of hashes `(N,)` with at most `distance` differing bits.

    Raises:
        AgiqaError: so many pairs that the distance can't mean "near-identical".
    """
    distinct, row = np.unique(hashes, return_inverse=True)
    ones, others, distances, total = [], [], [], 0
    for start in range(0, len(distinct), BLOCK):
        block = distinct[start : start + BLOCK]
        rest = distinct[start:]
        bits = np.bitwise_count(block[:, None] ^ rest[None, :])
        left, right = np.nonzero(bits <= distance)
        later = right > left  # each pair once, no hash with itself
        left, right = left[later], right[later]
        total += len(left)
        if total > MOST_PAIRS:
            raise AgiqaError(
                f"more than {MOST_PAIRS:,} pairs of images differ in at most {distance} of 64 "
                "bits: give a smaller --distance"
            )
        ones.append(left + start)
        others.append(right + start)
        distances.append(bits[left, right])
    return NearHashes(
        row.astype(np.intp),
        np.concatenate(ones).astype(np.intp),
        np.concatenate(others).astype(np.intp),
        np.concatenate(distances).astype(np.uint8),
    )
