"""A growth policy of your own: here pieces learn more slowly with each stage that they are old."""

from pggan_kit import MOMENTS, Component, Piece, Position, check_between, check_choice, hookimpl


class Mine:
    """Multiplies the learning rate of a piece by `decay` for each stage since it came.

    Args:
        decay: Factor for each stage, in [0, 1]; 0 freezes all but the newest pieces.
        moments: When the optimizers forget what they keep of weights; see `pggan_kit.components.GrowthPolicy`.

    Raises:
        ValueError: A value out of range.
    """

    def __init__(self, decay: float = 0.5, moments: str = "keep") -> None:
        check_between("decay", decay, 0, 1)
        check_choice("moments", moments, MOMENTS)
        self.decay = decay
        self.moments = moments

    def factor(self, piece: Piece, position: Position) -> float:
        """Return the factor on the learning rate of a piece at a place on the clock.

        `piece.net` and `piece.name` say what it is, and `piece.birth` the stage with which it came.
        """
        age = position.stage.of(piece.net).index - piece.birth.index
        return float(self.decay**age)


@hookimpl
def components() -> list[Component]:
    """Return what configs may name: `@growth.Mine()`."""
    return [Component("growth", "Mine", Mine)]
