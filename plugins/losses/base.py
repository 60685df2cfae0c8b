"""What all losses have."""

from __future__ import annotations

from collections.abc import Sequence

from pggan_kit import Penalty


class Penalised:
    """A loss with penalties, whose generator's part does not need the scores of reals.

    Args:
        penalties: terms added to the discriminator's.
    """

    needs_real = False

    def __init__(self, penalties: Sequence[Penalty] = ()) -> None:
        self.penalties = tuple(penalties)
