"""Switches that depend on the progress of the fade alone."""

from __future__ import annotations

import math

from pggan_kit import Stage, check_at_least, hookimpl


class Linear:
    """The soft switch of Karras et al. 2018, section 2: alpha grows linearly from 0 to 1.

    Args:
        discriminator_from: The smallest height of a stage in which D fades, too; in smaller ones its new layers take
            over at once. In facebookresearch/pytorch_GAN_zoo it is 16.

    Raises:
        SettingError: The height is below 0.
    """

    def __init__(self, discriminator_from: int = 0) -> None:
        check_at_least("discriminator_from", discriminator_from, 0)
        self.discriminator_from = discriminator_from

    @hookimpl
    def fade_alpha(self, stage: Stage, progress: float, path: str) -> float:
        """Return alpha = progress; 1 for the path `discriminator` in stages in which D does not fade."""
        if path == "discriminator" and stage.height < self.discriminator_from:
            return 1.0
        return progress


class Hard:
    """The hard switch: the new layers take over at once.

    The fade's images are spent all the same, and no old path is kept.

    Args:
        fade_reals: Whether the reals still fade in linearly, to separate the effect of fading them from that of fading
            the networks.
    """

    def __init__(self, fade_reals: bool = False) -> None:
        self.fade_reals = fade_reals

    @hookimpl
    def fade_alpha(self, progress: float, path: str) -> float:
        """Return alpha = 1; for the path `reals`, where they fade, alpha = progress."""
        if self.fade_reals and path == "reals":
            return progress
        return 1.0


class Cosine:
    """A fade along half a cosine wave: slow at both ends, so that new layers neither start nor take over abruptly."""

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        """Return alpha = (1 - cos(pi * progress)) / 2."""
        return (1.0 - math.cos(math.pi * progress)) / 2.0


class Smoothstep:
    """A fade along the cubic whose slope is 0 at both ends."""

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        """Return alpha = 3 * progress^2 - 2 * progress^3."""
        return progress * progress * (3.0 - 2.0 * progress)


ROUNDING = 1e-9
"""Share of a step by which rounding may leave the progress short of it."""


class Staircase:
    """A fade in equal steps: between the soft and the hard switch. The last step is the fade's end.

    Args:
        steps: The number of steps, each of 1 / steps, at least 1. With 1 the old path remains alone for the whole fade,
            and the new layers take over untrained at its end.

    Raises:
        ValueError: A number of steps out of range.
    """

    def __init__(self, steps: int = 4) -> None:
        check_at_least("steps", steps, 1)
        self.steps = steps

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        """Return alpha = floor(steps * progress) / steps."""
        return math.floor(self.steps * progress + ROUNDING) / self.steps


class GeneratorFirst:
    """A linear fade of the generator in the first half of the fade, and of the discriminator in the second half.

    The reals fade with the generator. Fading them keeps D from recognising reals by detail that G cannot draw yet, so
    they may hold no more of it than fakes do; and while D's own path is still the old one, D shrinks its images (in an
    architecture that preserves the function, with the pair `Nearest`) to what the reals' fade leaves unchanged, so D's
    scores do not change with it. If the reals faded with D instead, the second half would begin by showing D fakes
    with detail beside reals without any.
    """

    @hookimpl
    def fade_alpha(self, progress: float, path: str) -> float:
        """Return alpha = min(1, 2 * progress); for the path `discriminator`, max(0, 2 * progress - 1)."""
        if path == "discriminator":
            return max(0.0, 2.0 * progress - 1.0)
        return min(1.0, 2.0 * progress)
