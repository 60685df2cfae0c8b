"""Adaptive discriminator augmentation (Karras et al. 2020, "Training GANs with limited data")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pggan_kit import ConfigError, Run, TrainState, check_at_least, check_between, hookimpl, world_size
from pggan_plugins.augmentations import colour, geometry
from pggan_plugins.augmentations.dice import Dice
from pggan_plugins.augmentations.policy import checked_policy

GROUPS = ("blit", "geometry", "colour")
SIGN = "Scores/real_sign"
SHOWN = "Progress/augmentation"


class ADA:
    """Each transform strikes each sample with probability p, and p follows how far D overfits: it rises while the mean
    sign of D's scores of reals is above a target, and falls while it is below (section 3.1, the heuristic r_t).

    Groups (appendix B; there `blit` and `geometry` and `colour` did best together):
    * `blit`: horizontal flips, quarter turns (half turns only, where images are not square), shifts by whole pixels up
      to 1/8 of the size.
    * `geometry`: isotropic and anisotropic scaling, rotation, fractional shifts. Sampled bilinearly, the borders
      mirrored; the paper filters more sharply.
    * `colour`: brightness, contrast, luma flip, hue (of three channels), saturation (of more than one).

    Where 0 must lie between real and fake for r_t to mean anything, the loss should say so (logistic, hinge); a
    Wasserstein critic's scores drift as they like. `train.update` must return the tag `Scores/real_sign`, as
    `updates.Alternating` does. p is logged as `Progress/augmentation`: its mean over the tick.

    Args:
        policy: the groups, any of those three, each once.
        target: of r_t, in (-1, 1); None keeps p as it is.
        p: the probability to begin with, in [0, 1].
        interval: images between two corrections of p, at least 1; at most one correction a step.
        adjust_images: images in which p would go from 0 to 1, at least 1.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(
        self,
        policy: Sequence[str] = GROUPS,
        target: float | None = 0.6,
        p: float = 0.0,
        interval: int = 256,
        adjust_images: int = 500_000,
    ) -> None:
        check_between("target", target, -1, 1, low_included=False, high_included=False)
        check_between("p", p, 0, 1)
        for name, value in (("interval", interval), ("adjust_images", adjust_images)):
            check_at_least(name, value, 1)
        self.policy = checked_policy(policy, GROUPS)
        self.target = target
        self.first_p = float(p)
        self.interval = interval
        self.adjust_images = adjust_images
        self._begin(torch.device("cpu"))

    def _begin(self, device: torch.device) -> None:
        """Begin as at the start of a run."""
        self.p = torch.tensor(self.first_p, dtype=torch.float32, device=device)
        self.sign_sum = torch.tensor(0.0, dtype=torch.float32, device=device)
        self.gathered = 0
        self.clock = 0

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)."""
        p = self.p.to(images.device, non_blocking=True)
        dice = Dice(images.shape[0], p, torch.promote_types(images.dtype, torch.float32))
        if "blit" in self.policy or "geometry" in self.policy:
            height, width = images.shape[2:]
            images = geometry.warp(images, geometry.random_map(dice, self.policy, height, width))
        if "colour" in self.policy:
            images = colour.recolour(images, dice)
        return images

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Begin anew, with p where the networks are, so that no step has to wait for it."""
        self._begin(run.device)

    @hookimpl
    def before_stage(self, state: TrainState) -> None:
        """Where the next step's images are counted from, after a resume too."""
        self.clock = state.images

    @hookimpl
    def after_step(self, state: TrainState, losses: Mapping[str, Tensor]) -> None:
        """Gather the signs of D's scores of reals; at each interval correct p.

        Raises:
            ConfigError: the update does not report the signs.
        """
        drawn, self.clock = state.images - self.clock, state.images
        state.means.add({SHOWN: self.p})
        if self.target is None:
            return
        if SIGN not in losses:
            raise ConfigError(
                f"augmentations.ADA needs the tag {SIGN}, which this train.update does not return; choose another "
                "update, or bind augmentations.ADA.target = None for a fixed p"
            )
        self.sign_sum += over_ranks(losses[SIGN]) * drawn
        self.gathered += drawn
        if self.gathered >= self.interval:
            self._correct(self.target)

    @hookimpl
    def save_state(self) -> dict[str, Any]:
        """p, and what was gathered since it was last corrected."""
        return {"p": self.p.item(), "sign_sum": self.sign_sum.item(), "gathered": self.gathered}

    @hookimpl
    def load_state(self, saved: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.p.fill_(saved["p"])
        self.sign_sum.fill_(saved["sign_sum"])
        self.gathered = saved["gathered"]

    def _correct(self, target: float) -> None:
        mean = self.sign_sum / self.gathered
        self.p.add_((mean - target).sign() * (self.gathered / self.adjust_images)).clamp_(0.0, 1.0)
        self.sign_sum.zero_()
        self.gathered = 0


def over_ranks(value: Tensor) -> Tensor:
    """The mean of a 0-dim tensor over all ranks, equal to the bit on each: they see different reals and must agree on
    p, and a resumed run gives all of them what the first one saved."""
    if world_size() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / world_size()
