"""A plugin for the soak: a loss that becomes NaN now and then, so that `train.non_finite = 'rewind'` goes back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pggan_kit import Component, Scores, hookimpl
from pggan_plugins.losses import NonSaturating


class Bursts(NonSaturating):
    """A loss that is NaN at the first step past each of some places of the clock, until the run has gone back.

    Args:
        images: Images between two of these places.
        bursts: Number of places.
    """

    def __init__(self, images: int, bursts: int = 3) -> None:
        super().__init__()
        self.images = images
        self.bursts = bursts
        self.run: Any = None

    @hookimpl
    def before_run(self, run: Any) -> None:
        self.run = run

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        terms = super().generator(fake, real)
        rewinds = self.run.state.rewinds
        if rewinds < self.bursts and self.run.state.images >= (rewinds + 1) * self.images:
            terms = {name: term * torch.nan for name, term in terms.items()}
        return terms


@hookimpl
def components() -> list[Component]:
    return [Component("losses", "Bursts", Bursts)]
