"""A control for comparisons of switches: how far two runs drift apart by chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pggan_kit import Stage, TrainState, hookimpl
from pggan_plugins.switches.fades import Linear


class Nudged(Linear):
    """The linear fade; at the first growth one weight of the generator moves to the next larger float.

    Training is chaotic: after some thousand steps such a run differs from one with `Linear`, by chance alone. A variant
    that differs from `Linear` no more than this one does has no proven effect.
    """

    def __init__(self) -> None:
        self._done = False

    @hookimpl
    def before_run(self) -> None:
        """Reset the state that an earlier run left."""
        self._done = False

    @hookimpl
    def before_stage(self, stage: Stage, state: TrainState) -> None:
        """Nudge the weight, once: a run that is resumed here was nudged before."""
        if stage.index == 1 and state.images == state.starts[-1] and not self._done:
            with torch.no_grad():
                first_param = next(state.generator.parameters())
                weight = first_param[(0,) * first_param.dim()]
                weight.copy_(torch.nextafter(weight, torch.full_like(weight, torch.inf)))
            self._done = True

    @hookimpl
    def save_state(self) -> dict[str, Any]:
        """Return whether the weight was nudged."""
        return {"done": self._done}

    @hookimpl
    def load_state(self, saved: Mapping[str, Any]) -> None:
        """Restore the saved state."""
        self._done = bool(saved["done"])
