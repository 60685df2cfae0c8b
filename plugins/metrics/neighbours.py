"""Balls around points that reach to a near neighbour, and the points within them; in float64, a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

ROWS = 2048
"""Number of rows of a distance matrix that are in memory at once."""


def measure_radii(points: Tensor, neighbours: int) -> Tensor:
    """Return the distance (N,) of each point of (N, F) from its `neighbours`-th nearest neighbour among the others."""
    k = neighbours + 1  # the nearest is the point itself
    return torch.cat([torch.cdist(rows, points).kthvalue(k, dim=1).values for rows in points.split(ROWS)])


def find_points_in_balls(points: Tensor, centres: Tensor, radii: Tensor) -> Iterator[Tensor]:
    """Yield for a few points at a time which balls they lie in.

    Args:
        points: Points (M, F).
        centres: Centres (N, F) of the balls.
        radii: Radii (N,); the edge belongs to the ball.

    Yields:
        bool (m, N), for m points after the other, M in all.
    """
    for rows in points.split(ROWS):
        yield torch.cdist(rows, centres) <= radii
