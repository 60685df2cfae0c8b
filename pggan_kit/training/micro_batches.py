"""Gradient accumulation: a batch cut into slices (`train.micro_batch`), and put together again.

Slice i of k holds the rows i, i + k, i + 2k, ... Statistics over strided groups (minibatch stddev: of M groups, sample
g * M + m is in group m) then see the same groups in a slice as in the whole batch, as long as the size of a group
divides the slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor


def sliced(part: Mapping[str, Tensor | None], count: int) -> Iterator[dict[str, Tensor | None]]:
    """The batch's `count` slices.

    Raises:
        ValueError: its rows do not divide over them.
    """
    for name, rows in part.items():
        if rows is not None and len(rows) % count:
            raise ValueError(
                f"micro_batch cuts a batch into {count} slices, over which {name}'s {len(rows)} rows do not divide"
            )
    for index in range(count):
        yield {name: None if rows is None else rows[index::count] for name, rows in part.items()}


def joined(slices: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Of tensors with a row for each of a slice's, the whole ones, in the batch's order."""
    return {name: torch.stack([rows[name] for rows in slices], 1).flatten(0, 1) for name in slices[0]}


def averaged(slices: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The means of each slice's 0-dim tensors: those of the whole batch, where they are means over its rows."""
    return {name: torch.stack([values[name] for values in slices]).mean(0) for name in slices[0]}
