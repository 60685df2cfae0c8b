"""A control for comparisons of switches: how far two runs drift apart by chance."""

from __future__ import annotations

import torch
from torch import nn

from pggan_kit import ConfigError, Stage, TrainState, hookimpl
from pggan_plugins.switches.fades import Linear


class Nudged(Linear):
    """The linear fade; at the first growth one weight of the generator moves to the next larger number of bfloat16.

    The weight is the first one that is not 0: the number next to 0 is so small that it vanishes in all that follows.

    Training is chaotic: after some thousand steps such a run differs from one with `Linear`, by chance alone. A variant
    that differs from `Linear` no more than this one does has no proven effect. (The next float32 would be the same
    number again wherever networks compute in bfloat16, and such a run equal to that of `Linear`.)
    """

    @hookimpl
    def before_stage(self, stage: Stage, state: TrainState, continues: bool) -> None:
        """Nudge the weight as the stage begins; a run that continues within it was nudged before.

        Raises:
            ConfigError: All weights of the generator are 0.
        """
        if stage.index == 1 and not continues:
            nudge_first_weight(state.generator)


@torch.no_grad()
def nudge_first_weight(net: nn.Module) -> None:
    """Move the first weight of a network that is not 0 to the next larger number of bfloat16.

    Raises:
        ConfigError: All weights are 0.
    """
    for param in net.parameters():
        coarse = param.bfloat16()
        places = coarse.nonzero()
        if len(places):
            first = tuple(places[0].tolist())
            param[first] = torch.nextafter(coarse[first], torch.full_like(coarse[first], torch.inf))
            return
    raise ConfigError(
        "switches.Nudged needs a weight of the generator that is not 0, and all are: choose another switch"
    )
