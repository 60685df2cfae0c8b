"""Switches that depend on nothing but how far the fade has come."""

from __future__ import annotations

import math

from pggan_kit import check_at_least, hookimpl


class Linear:
    """The soft switch of Karras et al. 2018, section 2: alpha grows linearly from 0 to 1."""

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        """alpha = progress."""
        return progress


class Hard:
    """The new layers take over at once. The fade's images are spent all the same, and no old path is kept.

    Args:
        fade_reals: whether the reals still fade in linearly, to tell what fading them does from what fading the
            networks does.
    """

    def __init__(self, fade_reals: bool = False) -> None:
        self.fade_reals = fade_reals

    @hookimpl
    def fade_alpha(self, progress: float, path: str) -> float:
        """alpha = 1; of `reals` progress, where they fade."""
        return progress if self.fade_reals and path == "reals" else 1.0


class Cosine:
    """Half a cosine wave: slow at both ends, so that the new layers neither arrive nor take over with a jolt."""

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        """alpha = (1 - cos(pi * progress)) / 2."""
        return (1.0 - math.cos(math.pi * progress)) / 2.0


class Smoothstep:
    """The cubic whose slope is 0 at both ends."""

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        """alpha = 3 * progress^2 - 2 * progress^3."""
        return progress * progress * (3.0 - 2.0 * progress)


class Staircase:
    """A fade in equal steps: between the soft and the hard switch. The last of them is the fade's end.

    Args:
        steps: how often alpha rises, each time by 1 / steps, at least 1. With 1 the old path holds alone for the whole
            fade, and the new layers take over untrained at its end.

    Raises:
        ValueError: steps out of range.
    """

    def __init__(self, steps: int = 4) -> None:
        check_at_least("steps", steps, 1)
        self.steps = steps

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        """alpha = floor(steps * progress) / steps."""
        return math.floor(self.steps * progress) / self.steps


class GeneratorFirst:
    """The generator fades in over the first half of the fade, the discriminator over the second, each linearly.

    The reals go with the generator. Fading them keeps D from telling reals by detail that G cannot draw yet, so they
    may hold no more of it than fakes do; and while D's own path is still the old one it shrinks its images (in an
    architecture that preserves the function, with the pair `Nearest`) to what the reals' fade leaves untouched, so D's
    answers do not change with it. With the reals on D's path instead, the second half would begin by showing D fakes
    with detail beside reals without any.
    """

    @hookimpl
    def fade_alpha(self, progress: float, path: str) -> float:
        """alpha = min(1, 2 * progress), of `discriminator` max(0, 2 * progress - 1)."""
        return max(0.0, 2.0 * progress - 1.0) if path == "discriminator" else min(1.0, 2.0 * progress)
