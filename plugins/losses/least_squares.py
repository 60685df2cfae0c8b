"""The least-squares loss."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pggan_kit import Penalty, Scores, SettingError, check_finite
from pggan_plugins.losses.loss_with_penalties import LossWithPenalties


class LeastSquares(LossWithPenalties):
    """A regression of scores on targets (LSGAN, Mao et al. 2017, equation 2).

    Args:
        penalties: Terms added to the discriminator's.
        fake_target: Target a of D's scores of fakes.
        real_target: Target b of D's scores of reals.
        generator_target: Target c of the scores of fakes in G's loss.

    Raises:
        ValueError: A target is not finite, or the targets of reals and fakes are the same.
    """

    def __init__(
        self,
        penalties: Sequence[Penalty] = (),
        fake_target: float = 0.0,
        real_target: float = 1.0,
        generator_target: float = 1.0,
    ) -> None:
        super().__init__(penalties)
        for name, value in (
            ("fake_target", fake_target),
            ("real_target", real_target),
            ("generator_target", generator_target),
        ):
            check_finite(name, value)
        # With equal targets D would have nothing to tell apart.
        if fake_target == real_target:
            raise SettingError("real_target", f"must differ from fake_target, but both are {real_target}")
        self.fake_target = fake_target
        self.real_target = real_target
        self.generator_target = generator_target

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        """Return `least_squares`: `E[(D(real) - b)^2] / 2 + E[(D(fake) - a)^2] / 2`."""
        reals = (real.score - self.real_target).square().mean()
        fakes = (fake.score - self.fake_target).square().mean()
        return {"least_squares": (reals + fakes) / 2}

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        """Return `least_squares`: `E[(D(fake) - c)^2] / 2`."""
        return {"least_squares": (fake.score - self.generator_target).square().mean() / 2}
