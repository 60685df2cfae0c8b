"""Average the numbers of a tick on their device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pggan_kit.system import distributed


class TickMeans:
    """Running means of numbers, kept as 0-dim tensors on their device and read once a tick.

    The sums have double precision, and their means are rounded to single precision: ranks that are stopped within a
    tick go on from their common mean, and log what they log when they are not stopped.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one step's values.

        Args:
            values: 0-dim, or (k,) of what the step computed k times, each of which counts alike. A name that is missing
                in some steps, or has no values there, is averaged over those that have it.
        """
        for name, value in values.items():
            if value.numel() == 0:
                continue
            total = value
            if value.dim() > 0:
                total = value.sum()
            if name in self.sums:
                self.sums[name] += total
                self.counts[name] += value.numel()
            else:
                dtype = torch.float64
                if total.device.type == "mps":  # has no double precision, and no ranks
                    dtype = torch.float32
                self.sums[name] = total.detach().to(dtype, copy=True)
                self.counts[name] = value.numel()

    def gather(self) -> None:
        """Replace each rank's sums by their mean over all ranks: what rank 0 saves is valid for all."""
        distributed.average(list(self.sums.values()))

    def read(self) -> dict[str, float]:
        """Return the means over all values and ranks, as plain numbers, and reset them. Waits for the device.

        Their order depends on their names alone: which of them the first step of a tick has differs from tick to tick.
        """
        self.gather()
        means: dict[str, float] = {}
        if self.sums:
            # One copy from the device for all of them.
            totals = torch.stack(list(self.sums.values())).cpu().double()
            rounded = (totals / torch.tensor(list(self.counts.values()))).float()
            means = dict(zip(self.sums, rounded.tolist(), strict=True))
            means = {tag: means[tag] for tag in sorted(means, key=_rank_tag)}
        self.sums = {}
        self.counts = {}
        return means


def _rank_tag(tag: str) -> tuple[str, bool, str]:
    """Return what tags are sorted by: the network, and penalties, which have the names of classes, behind the loss."""
    group, _, name = tag.rpartition("/")
    return group, name[:1].isupper(), name
