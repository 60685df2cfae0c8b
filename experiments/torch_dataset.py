"""A map-style torch data set as a part of configs: drawn discs, without a download."""

import torch
from torch import Tensor

from pggan_kit import Component, check_at_least, hookimpl
from pggan_plugins.datasets import Torch

SIDE = 28


class DrawnDiscs(torch.utils.data.Dataset[tuple[Tensor]]):
    """White discs of 28x28 pixels, of random size and place; item i is always the same."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Tensor]:
        draws = torch.rand(3, generator=torch.Generator().manual_seed(i))
        radius = 3 + 6 * draws[0]
        row, column = radius + (SIDE - 1 - 2 * radius) * draws[1:]
        pixels = torch.arange(SIDE)
        distances = torch.hypot(pixels[:, None] - row, pixels - column)
        return ((radius + 0.5 - distances).clamp(0, 1),)


def make_discs(count: int = 2_000) -> Torch:
    """Return the data set as `datasets.Torch` wraps it, with a name for its contents."""
    check_at_least("count", count, 1, whole=True)
    return Torch(DrawnDiscs(count), name=f"discs {count}")


@hookimpl
def components() -> list[Component]:
    """Return the data set, which configs name `datasets.Discs`."""
    return [Component("datasets", "Discs", make_discs)]
