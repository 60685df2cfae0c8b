"""Compute alpha and fade reals: the one home of alpha's rule."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pggan_kit.errors import TrainingError
from pggan_kit.schedule import Stage

NETS = ("generator", "discriminator")
"""Names of the networks that every run has, which may have an old path beside the new one."""

ENCODER = "encoder"
"""Name of the network that a run may have besides. It fades like the discriminator, with that one's alpha."""

PATHS = (*NETS, "reals")
"""Names of all that has an alpha."""


class AnsweringHooks(Protocol):
    """The hooks of a run as far as they answer questions: `plugin_host.hooks.Hooks`."""

    def ask(self, hook: str, **arguments: Any) -> Any:
        """Return the one answer to a question, or None where no plugin answers."""


@dataclass(frozen=True)
class Fade:
    """The rule that decides alpha: the share of the new path while a stage fades in, in [0, 1].

    The hook `fade_alpha` is asked. Where no plugin answers, alpha is the fade's progress. Outside of a fade, and so in
    a stage without fade images, alpha is 1 and the hook is not asked. The alpha of reals is 1 where `train.fade_reals`
    is off. A network whose alpha is 1 as the stage begins grows without an old path, and its alpha must stay 1. So does
    that of a discriminator that does not grow as the stage begins; then the hook is not asked either.

    Args:
        hooks: the hooks that are asked for alpha.
        fade_reals: `train.fade_reals`; it does not matter to the alphas of networks.
    """

    hooks: AnsweringHooks
    fade_reals: bool = True

    def compute_alpha(self, stage: Stage, start: int, images: int, path: str) -> float:
        """Return alpha of one path.

        Args:
            stage: the stage that fades in.
            start: the clock at which the stage began.
            images: the clock.
            path: one of `PATHS`.

        Raises:
            TrainingError: the switch gave no number in [0, 1], or failed.
        """
        spent = images - start
        if spent >= stage.fade_images or (path in NETS and stage.keeps(path)):
            return 1.0
        return self.ask_alpha(stage, spent / stage.fade_images, images, path)

    def ask_alpha(self, stage: Stage, progress: float, images: int, path: str) -> float:
        """Ask for alpha within a fade, and return it.

        Args:
            stage: the stage that fades in.
            progress: share of the fade's images that are spent.
            images: the clock.
            path: one of `PATHS`.

        Raises:
            TrainingError: the switch gave no number in [0, 1], or failed.
        """
        if path == "reals" and not self.fade_reals:
            return 1.0

        # Without a switch the fade is linear.
        answer = self.hooks.ask("fade_alpha", stage=stage, progress=progress, images=images, path=path)
        alpha = progress
        if answer is not None:
            try:
                alpha = float(answer)
            except (TypeError, ValueError) as error:
                raise TrainingError(
                    f"the switch gave {answer!r} as alpha for the {path} at images {images}; it must be a "
                    "number in [0, 1]"
                ) from error
        if not 0.0 <= alpha <= 1.0:
            raise TrainingError(f"the switch gave alpha {alpha} for the {path} at images {images}; it lies in [0, 1]")
        return alpha

    def compute_alphas(self, stage: Stage, start: int, images: int, old_paths: Collection[str]) -> dict[str, float]:
        """Return alpha of each of `PATHS`.

        Args:
            stage, start, images: see `compute_alpha`.
            old_paths: the networks that have an old path.

        Raises:
            TrainingError: the switch gave no number in [0, 1], gave another alpha than 1 for a network without an
                old path, or failed.
        """
        alphas = {}
        for path in PATHS:
            alpha = self.compute_alpha(stage, start, images, path)
            # A path that was dropped cannot return; reals have none to drop.
            if alpha != 1.0 and path in NETS and path not in old_paths:
                raise TrainingError(
                    f"the switch gave alpha {alpha} for the {path} at images {images}, after 1 at the start of "
                    f"stage {stage.size}: a path that starts at 1 has no old path to return to"
                )
            alphas[path] = alpha
        return alphas

    def find_old_paths(self, stage: Stage, start: int) -> set[str]:
        """Return the networks that keep their old path as a stage begins.

        Args:
            stage: the stage that begins.
            start: the clock at which it begins.

        Raises:
            TrainingError: the switch gave no number in [0, 1], or failed.
        """
        return {net for net in NETS if self.compute_alpha(stage, start, start, net) != 1.0}


def fade_reals(images: Tensor, factor: int, alpha: Tensor, up: nn.Module, down: nn.Module) -> Tensor:
    """Return reals with as much detail as a half-grown network shows: `lerp(up(down(x)), x, alpha)`.

    As in the released code of Karras et al. 2018.

    Args:
        images: reals (N, C, h, w).
        factor: the stage's factor of enlargement.
        alpha: 0-dim, the share of the full detail, in [0, 1].
        up, down: image resampling by `factor`.
    """
    return torch.lerp(up(down(images)), images, alpha.to(images.dtype))
