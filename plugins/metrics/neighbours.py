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
    return torch.cat([measure_distances(rows, points).kthvalue(k, dim=1).values for rows in points.split(ROWS)])


def measure_distances(points: Tensor, others: Tensor) -> Tensor:
    """Return the distances (M, N) of points (M, F) from others (N, F).

    By differences: matrix products are faster, and round so that two equal points are not 0 apart, nor a point on the
    edge of a ball as far from its centre as the radius says.
    """
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")


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
        yield distances <= radii if with_edge else distances < radii
