"""An average of your own: here the mean over a share of a piece's life, or longer where that is too short."""

from collections.abc import Sequence

from pggan_kit import Component, Position, check_above, check_average_name, check_between, hookimpl


class Mine:
    """Averages over a memory that grows with the age of each piece, up to a number of images.

    Args:
        share: Memory as a share of the age, in (0, 1].
        longest: Longest memory in images, above 0.
        name: Name of the average.

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(self, share: float = 0.1, longest: float = 50_000, name: str = "growing") -> None:
        check_between("share", share, 0, 1, low_included=False)
        check_above("longest", longest, 0)
        check_average_name("name", name)
        self.share = share
        self.longest = longest
        self.name = name
        self.names: Sequence[str] = (name,)

    def compute_shares(self, position: Position, age: int, images: int) -> tuple[float]:
        """Return the share of the memory that this update is.

        A setting that may be per stage or a curve has the value `value_at(setting, position)`.
        """
        memory = min(self.longest, self.share * age)
        return (min(1.0, images / max(memory, images)),)


@hookimpl
def components() -> list[Component]:
    """Return what configs may name: `@averages.Mine()`."""
    return [Component("averages", "Mine", Mine)]
