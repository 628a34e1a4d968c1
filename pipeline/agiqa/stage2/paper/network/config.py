"""Sizes of the paper's network; the defaults are its own, small ones make a tiny net for tests."""

from dataclasses import dataclass

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Network

SWIN_LAYERS = 2  # in each scaled Swin stage
SWIN_BLOCKS = 2  # in each layer, the second one shifted
CHANNEL_BLOCKS = 2  # transposed attention blocks before each stage


@dataclass(frozen=True)
class PaperConfig(Network):
    """Every size and rate of `PaperRegressor`: the settings', and what the vectors say.

    Raises:
        AgiqaError: sizes that do not divide each other; one line says which.
    """

    semantic_width: int = 4096  # D of the semantic vectors

    def __post_init__(self) -> None:
        divisions = {
            "image size by patch size": (self.image_size, self.patch_size),
            "patches a side by Swin window": (self.grid, self.window),
            "width by heads": (self.width, self.heads),
            "half the width by Swin heads": (self.width // 2, self.swin_heads),
            "width by 2": (self.width, 2),
        }
        for what, (size, part) in divisions.items():
            if size % part or size < part:
                raise AgiqaError(
                    f"The paper's network divides {what}, found {size} by {part}: change "
                    "paper.network so that nothing is left over."
                )

    @property
    def grid(self) -> int:
        """Patches a side, h and w."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        """N: patches of an image, which is also the width of every expert."""
        return self.grid**2

    @property
    def depth(self) -> int:
        """ViT blocks there are: none behind the last that is read."""
        return max(self.layers_run) + 1
