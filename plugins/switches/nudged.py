"""A control for comparisons of switches: how far two runs drift apart by chance."""

from __future__ import annotations

import torch

from pggan_kit import Stage, TrainState, hookimpl
from pggan_plugins.switches.fades import Linear


class Nudged(Linear):
    """The linear fade; at the first growth one weight of the generator moves to the next larger number of bfloat16.

    Training is chaotic: after some thousand steps such a run differs from one with `Linear`, by chance alone. A variant
    that differs from `Linear` no more than this one does has no proven effect. (The next float32 would be the same
    number again wherever networks compute in bfloat16, and such a run equal to that of `Linear`.)
    """

    @hookimpl
    def before_stage(self, stage: Stage, state: TrainState, continues: bool) -> None:
        """Nudge the weight as the stage begins; a run that continues within it was nudged before."""
        if stage.index == 1 and not continues:
            with torch.no_grad():
                first_param = next(state.generator.parameters())
                weight = first_param[(0,) * first_param.dim()]
                coarse = weight.bfloat16()
                weight.copy_(torch.nextafter(coarse, torch.full_like(coarse, torch.inf)))
