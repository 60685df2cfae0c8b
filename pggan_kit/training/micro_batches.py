"""Gradient accumulation: a batch cut into slices (`train.micro_batch`), and their results merged again.

Slice i of k holds the rows i, i + k, i + 2k, ... Statistics over strided groups (minibatch stddev: with M groups,
sample g * M + m is in group m) then see the same groups in a slice as in the whole batch, as long as the size of a
group divides the size of a slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from pggan_kit.layers.tensors import close_gaps


def slice_batch(batch: Mapping[str, Tensor | None], count: int) -> Iterator[dict[str, Tensor | None]]:
    """Yield the slices of a batch, each without gaps in memory: compiled code fixes the strides of its inputs.

    Args:
        batch: Named tensors with N rows each; None stays None, and each slice gets the same 0-dim tensors.
        count: Number of slices.

    Raises:
        ValueError: N is no multiple of `count`.
    """
    # Check all rows before the first slice is worked on.
    for name, rows in batch.items():
        if rows is not None and rows.dim() > 0 and len(rows) % count:
            raise ValueError(
                f"micro_batch cuts a batch into {count} slices, over which {name}'s {len(rows)} rows do not divide"
            )
    for index in range(count):
        piece: dict[str, Tensor | None] = {}
        for name, rows in batch.items():
            piece[name] = rows
            if rows is not None and rows.dim() > 0:
                piece[name] = close_gaps(rows[index::count])
        yield piece


def merge_slices(slices: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return tensors with a row for each row of the batch, in its order, from those of its slices."""
    merged = {}
    for name in slices[0]:
        rows = torch.stack([values[name] for values in slices], 1)
        merged[name] = rows.flatten(0, 1)
    return merged


def average_slices(slices: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the means over slices of 0-dim tensors: the values of the whole batch, where they are means over rows."""
    return {name: torch.stack([values[name] for values in slices]).mean(0) for name in slices[0]}
