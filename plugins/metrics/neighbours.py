"""Balls around points that reach to a near neighbour, and the points within them; in float64, a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

ROWS = 2048
"""Number of rows of a distance matrix that are in memory at once."""

ROUNDING = 1e-9
"""Relative difference below which two distances, computed in other orders of summation, are the same."""


def measure_radii(points: Tensor, neighbours: int) -> Tensor:
    """Return the distance (N,) of each point of (N, F) from its `neighbours`-th nearest neighbour among the others."""
    k = neighbours + 1  # the nearest is the point itself
    return torch.cat([measure_distances(rows, points).kthvalue(k, dim=1).values for rows in points.split(ROWS)])


def measure_distances(points: Tensor, others: Tensor) -> Tensor:
    """Return the distances (M, N) of points (M, F) from others (N, F), in float64.

    By a matrix product, 17 times as fast as by differences at 2,048 features on a CPU. It rounds, by more the farther
    the points are from zero: they are moved there first, and what rounding leaves between equal points is 0.
    """
    centre = others.mean(0)
    points = points - centre
    others = others - centre
    sizes = points.square().sum(1)[:, None] + others.square().sum(1)
    squares = torch.addmm(sizes, points, others.T, alpha=-2)
    return squares.masked_fill_(squares < ROUNDING * sizes, 0.0).sqrt_()


def find_points_in_balls(points: Tensor, centres: Tensor, radii: Tensor, *, with_edge: bool) -> Iterator[Tensor]:
    """Yield for a few points at a time which balls they lie in.

    Args:
        points: Points (M, F).
        centres: Centres (N, F) of the balls.
        radii: Radii (N,).
        with_edge: Whether the edge belongs to the ball.

    Yields:
        bool (m, N), for m points after the other, M in all.
    """
    for rows in points.split(ROWS):
        distances = measure_distances(rows, centres)
        if with_edge:
            yield distances <= radii * (1 + ROUNDING)
        else:
            yield distances < radii * (1 - ROUNDING)
