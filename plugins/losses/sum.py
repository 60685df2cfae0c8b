"""A sum of losses."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pggan_kit import Loss, Penalty, Scores, SettingError, check_at_least


class Sum:
    """Several losses at once: the terms of all of them, each loss's times its weight.

    A term keeps its name; a second one of that name is called `hinge_2`. Penalties of all losses are added, with their
    own weights.

    Args:
        losses: The losses, at least one.
        weights: A factor for each loss, at least 0. None: 1 for each.

    Raises:
        ValueError: There is no loss, a weight is out of range, or there is not one weight for each loss.
    """

    def __init__(self, losses: Sequence[Loss], weights: Sequence[float] | None = None) -> None:
        if not losses:
            raise SettingError("losses", "must have at least one loss")
        if weights is None:
            weights = [1.0] * len(losses)
        if len(weights) != len(losses):
            raise SettingError("weights", f"must have one number for each of the {len(losses)} losses: {list(weights)}")
        for weight in weights:
            check_at_least("weights", weight, 0)
        self.losses = tuple(losses)
        self.weights = tuple(weights)

    @property
    def needs_real(self) -> bool:
        """Whether a loss needs the scores of reals for G."""
        return any(loss.needs_real for loss in self.losses)

    @property
    def penalties(self) -> Sequence[Penalty]:
        """The penalties of all losses."""
        return tuple(penalty for loss in self.losses for penalty in loss.penalties)

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        """Return the weighted terms of all losses."""
        return self._weigh([loss.discriminator(real, fake) for loss in self.losses])

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        """Return the weighted terms of all losses; those that do not need the scores of reals are given none."""
        return self._weigh([loss.generator(fake, real if loss.needs_real else None) for loss in self.losses])

    def _weigh(self, parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return all terms in one dict, times their loss's weight and under names of their own."""
        terms: dict[str, Tensor] = {}
        for weight, part in zip(self.weights, parts, strict=True):
            for name, value in part.items():
                free = name
                number = 1
                while free in terms:
                    number += 1
                    free = f"{name}_{number}"
                terms[free] = weight * value
        return terms
