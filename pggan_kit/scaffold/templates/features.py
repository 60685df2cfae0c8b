"""Features of your own: here an image's brightness in a coarse grid, for metrics to compare."""

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from pggan_kit import Component, check_between, hookimpl


class Mine:
    """The mean brightness in each of `cells` x `cells` fields of an image.

    Args:
        cells: in a row and in a column, from 1 to 16.

    Raises:
        ValueError: a number outside that range.
    """

    def __init__(self, cells: int = 4) -> None:
        check_between("cells", cells, 1, 16)
        self.cells = cells

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, h, w) in [-1, 1] -> (N, F), with the same F at every size, in gray and colour."""
        gray = images.mean(1, keepdim=True)
        return adaptive_avg_pool2d(gray, self.cells).flatten(1)

    def fingerprint(self) -> str:
        """Equal if and only if all features are equal; names those that are kept on disk."""
        return f"brightness 1 {self.cells}"


@hookimpl
def components() -> list[Component]:
    """What configs may name: `@features.Mine()`."""
    return [Component("features", "Mine", Mine)]
