"""Adaptive discriminator augmentation (Karras et al. 2020, "Training GANs with limited data")."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pggan_kit import (
    ConfigError,
    Position,
    Run,
    SettingError,
    TrainState,
    Varying,
    check_at_least,
    check_between,
    hookimpl,
    value_at,
    world_size,
)
from pggan_plugins.augmentations import colour, geometry
from pggan_plugins.augmentations.policy import check_policy
from pggan_plugins.augmentations.random_draws import RandomDraws

GROUPS = ("blit", "geometry", "colour")

SIGN_TAG = "Scores/real_sign"
"""Tag of the mean sign of D's scores of reals, which the update returns."""

P_TAG = "Progress/augmentation"
"""Tag under which p is logged."""


class ADA:
    """Transforms that change each sample with a probability p, which follows how far D overfits.

    p rises while the mean sign of D's scores of reals is above a target, and falls while it is below (section 3.1, the
    heuristic r_t).

    Groups (appendix B; there `blit`, `geometry` and `colour` together did best):
    * `blit`: horizontal flips, quarter turns (only half turns where images are not square), shifts by whole pixels up
      to 1/8 of the size.
    * `geometry`: isotropic and anisotropic scaling, rotation, fractional shifts. Sampled bilinearly, with mirrored
      borders; the paper's filter is sharper.
    * `colour`: brightness, contrast, luma flip, hue (of three channels), saturation (of more than one).

    r_t means something only with a loss that puts 0 between reals and fakes (logistic, hinge); the scores of a
    Wasserstein critic may drift anywhere. `train.update` must return the tag `Scores/real_sign`, as
    `updates.Alternating` does. p is logged as `Progress/augmentation`, its mean over the tick.

    Args:
        policy: Names of the groups to apply: any of those three, each once.
        target: Target of r_t, in (-1, 1); None leaves p as it is given.
        p: Probability at the start, in [0, 1]. Without a target it may be per stage or a curve.
        interval: Number of images between two corrections of p, at least 1; there is at most one correction a step.
        adjust_images: Number of images in which p would rise from 0 to 1, at least 1.
        largest_angle: Largest angle of each of the two rotations of `geometry`, in degrees, in [0, 180]. Digits that
            stand on their heads are others.

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(
        self,
        policy: Sequence[str] = GROUPS,
        target: float | None = 0.6,
        p: Varying[float] = 0.0,
        interval: int = 256,
        adjust_images: int = 500_000,
        largest_angle: float = 180.0,
    ) -> None:
        check_between("target", target, -1, 1, low_included=False, high_included=False)
        check_between("p", p, 0, 1)
        if target is not None and not isinstance(p, (int, float)):
            raise SettingError("p", "is corrected towards the target, so it is a number: or bind target = None")
        check_between("largest_angle", largest_angle, 0, 180)
        for name, value in (("interval", interval), ("adjust_images", adjust_images)):
            check_at_least(name, value, 1, whole=True)

        # The probability starts at p, and moves unless there is no target.
        self.policy = check_policy(policy, GROUPS)
        self.target = target
        self.first_p = p
        self.interval = interval
        self.adjust_images = adjust_images
        self.largest_angle = math.radians(largest_angle)
        self._reset(torch.device("cpu"))

    def _reset(self, device: torch.device) -> None:
        """Set the state to that at the start of a run."""
        first_p = self.first_p if isinstance(self.first_p, (int, float)) else 0.0
        self.p = torch.tensor(first_p, dtype=torch.float32, device=device)
        self.sign_sum = torch.tensor(0.0, dtype=torch.float32, device=device)
        self.gathered = 0
        self.clock = 0

    def __call__(self, images: Tensor) -> Tensor:
        """Return the augmented images: (N, C, h, w) -> (N, C, h, w)."""
        p = self.p.to(images.device, non_blocking=True)
        draws = RandomDraws(images.shape[0], p, torch.promote_types(images.dtype, torch.float32))
        if "blit" in self.policy or "geometry" in self.policy:
            height, width = images.shape[2:]
            images = geometry.warp(images, geometry.draw_map(draws, self.policy, height, width, self.largest_angle))
        if "colour" in self.policy:
            images = colour.recolour(images, draws)
        return images

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Start from the first p, on the device of the networks, so that no step has to wait for it."""
        self._reset(run.device)

    @hookimpl
    def before_stage(self, state: TrainState) -> None:
        """Note the clock, from which the images of the next step are counted."""
        self.clock = state.images

    @hookimpl
    def after_step(self, state: TrainState, losses: Mapping[str, Tensor]) -> None:
        """Add up the signs of D's scores of reals, and correct p at each interval.

        Raises:
            ConfigError: The update does not return the signs.
        """
        # p is logged even where it is fixed.
        step_images = state.images - self.clock
        self.clock = state.images
        state.means.add({P_TAG: self.p})
        if self.target is None:
            return

        if SIGN_TAG not in losses:
            raise ConfigError(
                f"augmentations.ADA needs the tag {SIGN_TAG}, which this train.update does not return; choose another "
                "update, or bind augmentations.ADA.target = None for a fixed p"
            )

        # Ranks have batches of one size, so that their mean is that of the whole batch.
        self.sign_sum += average_over_ranks(losses[SIGN_TAG]) * step_images
        self.gathered += step_images
        if self.gathered >= self.interval:
            self._correct_p(self.target)

    @hookimpl
    def save_state(self) -> dict[str, Any]:
        """Return p, the signs since its last correction, and the clock from which the next step's images are counted.

        After a dropped step it is not that of the run.
        """
        return {"p": self.p.item(), "sign_sum": self.sign_sum.item(), "gathered": self.gathered, "clock": self.clock}

    @hookimpl
    def load_state(self, saved: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        if self.target is not None:
            self.p.fill_(saved["p"])
        self.sign_sum.fill_(saved["sign_sum"])
        self.gathered = saved["gathered"]
        self.clock = saved["clock"]

    def check_at(self, position: Position) -> None:
        """Check p at a place on the clock.

        Raises:
            ConfigError: A curve's value is no probability.
        """
        self._find_p(position)

    def set_to_clock(self, position: Position) -> None:
        """Set a p that moves, or is given per stage, to its value at a place on the clock."""
        if not isinstance(self.first_p, (int, float)):
            self.p.fill_(self._find_p(position))

    def _find_p(self, position: Position) -> float:
        """Return p as it is set at a place on the clock; see `check_at`."""
        p: float = value_at(self.first_p, position, "p")
        if not 0 <= p <= 1:
            raise ConfigError(f"augmentations.ADA.p must be in [0, 1], and is {p} at {position}")
        return p

    def _correct_p(self, target: float) -> None:
        mean_sign = self.sign_sum / self.gathered
        change = (mean_sign - target).sign() * (self.gathered / self.adjust_images)
        self.p.add_(change).clamp_(0.0, 1.0)
        self.sign_sum.zero_()
        self.gathered = 0


def average_over_ranks(value: Tensor) -> Tensor:
    """Return the mean of a 0-dim tensor over all ranks, equal bit for bit on each.

    Ranks see different reals and must agree on p; a resumed run also gives all of them what the first one saved.
    """
    if world_size() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / world_size()
