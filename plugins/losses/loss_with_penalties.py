"""The base class of losses."""

from __future__ import annotations

from collections.abc import Sequence

from pggan_kit import Penalty


class LossWithPenalties:
    """A loss with penalties, whose generator term does not need the scores of reals.

    Args:
        penalties: Terms added to the discriminator's.
    """

    needs_real = False

    def __init__(self, penalties: Sequence[Penalty] = ()) -> None:
        self.penalties = tuple(penalties)
