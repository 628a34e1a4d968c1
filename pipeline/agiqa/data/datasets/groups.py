"""Which images belong together: the key that prompts are compared by, wherever they are compared.

Two prompts are one where they differ in nothing but Unicode form (full-width letters, composed or
decomposed accents), characters that nobody sees (zero-width spaces and joiners, variation
selectors, soft hyphens, control characters), the amount and kind of white space, or case. The key
errs towards one: two groups too few cost nothing, a prompt on both sides of a split is a leak.

Without a group column an image's group is its prompt's key. The values of a user's own column are
names, and stay as they are: `A1` and `a1` are two groups (`csv_file` tells of such pairs).
"""

import re
import unicodedata
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

# Unicode's Default_Ignorable_Code_Point: what NFKC_Casefold leaves out.
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
Rows = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]


def prompt_key(prompt: str) -> str:
    """Make the key by which the prompt is compared; "" where it says nothing."""
    text = prompt
    while True:
        visible = _UNSEEN.sub("", unicodedata.normalize("NFKC", text))
        key = " ".join(_CONTROL.sub(" ", visible).casefold().split())
        if key == text:  # what folding gives may compose anew
            return key
        text = key


def prompt_groups(prompts: "pd.Series[str]") -> "pd.Series[str]":
    """Make each prompt's key, which is the group of an image that has no other."""
    return prompts.map({prompt: prompt_key(prompt) for prompt in prompts.unique()}).astype(
        prompts.dtype
    )


def grouped_by_prompt(frame: pd.DataFrame) -> bool:
    """Tell whether a table's groups are its prompts' keys, not names of somebody's own."""
    return bool((frame["group"] == prompt_groups(frame["prompt"])).all())


def has_own_groups(frame: pd.DataFrame) -> bool:
    """Tell whether some image is of a group that is not its prompt's."""
    return bool((frame["group"] != "").any()) and not grouped_by_prompt(frame)


class Relatives:
    """What images of one table share with images of another: files, groups and prompts."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._files = frame["image_id"]
        self._groups = frame["group"]
        self._prompts = prompt_groups(frame["prompt"])
        self._by_prompt = grouped_by_prompt(frame)

    def counts(self, rows: Rows, other_rows: Rows) -> dict[str, int]:
        """Count by kind the `rows` with a relative among `other_rows` of the same table."""
        counts = {}
        for kind, codes in self._codes.items():
            others = codes[other_rows]
            counts[kind] = int(np.isin(codes[rows], others[others >= 0]).sum())
        return counts

    @cached_property
    def _codes(self) -> dict[str, Rows]:
        """Number by kind what images may share `(N,)`, which compares faster; -1: nothing."""
        kinds = {
            "same_prompt": self._prompts,
            "same_group": self._groups,
            "same_file": self._files,
        }
        return {
            kind: np.where(values == "", -1, pd.factorize(values)[0])
            for kind, values in kinds.items()
        }

    def of(self, relatives: "Relatives", rows: Rows, by_group: bool) -> Mask:
        """Tell for each image `(N,)` whether it must stand on the side of those `rows`.

        That is a byte-identical file, and `by_group` an image of the group, too; what a group is
        the other table says: its prompts, or names of its own.
        """
        file = self._files.isin(set(relatives._files.iloc[rows]))
        if not by_group:
            return file.to_numpy()
        names = set(relatives._groups.iloc[rows]) - {""}
        group = self._groups.isin(names)
        if relatives._by_prompt:
            group |= self._prompts.isin(names)
        return (file | group).to_numpy()

    def of_prompt(self, relatives: "Relatives", rows: Rows) -> Mask:
        """Tell for each image `(N,)` whether one of those `rows` has its prompt."""
        return self._prompts.isin(set(relatives._prompts.iloc[rows]) - {""}).to_numpy()
