"""A loss of your own: here a hinge whose margin can be set."""

from collections.abc import Sequence

from torch import Tensor

from pggan_kit import Component, Penalty, Scores, check_above, hookimpl


class Mine:
    """Hinge loss: D wants reals above `margin` and fakes below `-margin`, G wants fakes to score high.

    Args:
        margin: above 0.
        penalties: terms that are added to D's part.

    Raises:
        ValueError: a margin that is not above 0.
    """

    needs_real = False  # whether G's part reads the scores of reals

    def __init__(self, margin: float = 1.0, penalties: Sequence[Penalty] = ()) -> None:
        check_above("margin", margin, 0)
        self.margin = margin
        self.penalties = tuple(penalties)

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        """Named 0-dim terms; their sum is minimised. Scores are (N,)."""
        return {
            "real": (self.margin - real.score).relu().mean(),
            "fake": (self.margin + fake.score).relu().mean(),
        }

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        """Named 0-dim terms; their sum is minimised."""
        return {"fake": -fake.score.mean()}


@hookimpl
def components() -> list[Component]:
    """What configs may name: `@losses.Mine()`."""
    return [Component("losses", "Mine", Mine)]
