"""A loss of your own: here a hinge loss whose margin can be set."""

from collections.abc import Sequence

from torch import Tensor

from pggan_kit import Component, Penalty, Scores, check_above, hookimpl


class Mine:
    """Hinge loss: D pushes reals above `margin` and fakes below `-margin`; G raises the scores of its fakes.

    Args:
        margin: Score beyond which D gains nothing, above 0.
        penalties: Penalties whose terms are added to D's.

    Raises:
        ValueError: The margin is not above 0.
    """

    needs_real = False  # whether G's terms use the scores of reals

    def __init__(self, margin: float = 1.0, penalties: Sequence[Penalty] = ()) -> None:
        check_above("margin", margin, 0)
        self.margin = margin
        self.penalties = tuple(penalties)

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        """Return D's 0-dim terms by name, from scores (N,); their sum is minimised."""
        return {
            "real": (self.margin - real.score).relu().mean(),
            "fake": (self.margin + fake.score).relu().mean(),
        }

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        """Return G's 0-dim terms by name; their sum is minimised."""
        return {"fake": -fake.score.mean()}


@hookimpl
def components() -> list[Component]:
    """Return what configs may name: `@losses.Mine()`."""
    return [Component("losses", "Mine", Mine)]
