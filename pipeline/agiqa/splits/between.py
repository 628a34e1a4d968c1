"""Two data sets with the same image: a test across data sets must not meet what was trained on.

`leaks` counts this within a data set; here the sides stand in two tables. Byte-identical files have
the same `image_id`, whatever they are called.
"""

from agiqa.datasets.table import ImagesTable
from agiqa.errors import AgiqaError, some
from agiqa.images import printable


def shared_images(one: ImagesTable, other: ImagesTable) -> list[tuple[str, str]]:
    """Paths in `one` and `other` of every image that both hold, in the order of `one`."""
    there = dict(zip(other.frame["image_id"], other.frame["path"], strict=True))
    mine = zip(one.frame["image_id"], one.frame["path"], strict=True)
    return [(path, there[image]) for image, path in mine if image in there]


def require_apart(trained_on: ImagesTable, tested_on: ImagesTable) -> None:
    """Refuse to test on images that were trained on; the tables hold those of the two sides alone.

    Raises:
        AgiqaError: says how many they share, and some of them.
    """
    shared = shared_images(tested_on, trained_on)
    if shared:
        named = some([f"{printable(a)} is {printable(b)}" for a, b in shared], 3)
        raise AgiqaError(
            f"{tested_on.name} would be tested on {len(shared):,} images that {trained_on.name} "
            f"trained on, byte for byte ({named}): leave them out of one of the two"
        )
