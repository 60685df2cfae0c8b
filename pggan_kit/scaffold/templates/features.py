"""Features of your own: here an image's brightness in a coarse grid, which metrics compare."""

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from pggan_kit import Component, check_between, hookimpl


class Mine:
    """The mean brightness of an image in each cell of a grid.

    Args:
        cells: Number of cells in a row and in a column, from 1 to 16.

    Raises:
        ValueError: The number is outside that range.
    """

    def __init__(self, cells: int = 4) -> None:
        check_between("cells", cells, 1, 16)
        self.cells = cells

    def __call__(self, images: Tensor) -> Tensor:
        """Return features, (N, C, h, w) in [-1, 1] -> (N, F), with the same F at every size, in gray and in colour."""
        gray = images.mean(1, keepdim=True)
        return adaptive_avg_pool2d(gray, self.cells).flatten(1)

    def fingerprint(self) -> str:
        """Return a text that is equal if and only if all features are; it names features that are kept on disk."""
        return f"brightness 1 {self.cells}"


@hookimpl
def components() -> list[Component]:
    """Return what configs may name: `@features.Mine()`."""
    return [Component("features", "Mine", Mine)]
