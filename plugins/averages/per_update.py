"""An exponential moving average by updates, and none at all."""

from __future__ import annotations

from collections.abc import Sequence

from pggan_kit import Position, Varying, check_average_name, check_between, list_plain_values, value_at


class PerUpdate:
    """An exponential moving average that keeps the same share at each update (Karras et al. 2018).

    Its memory in images changes with the batch size of a stage.

    Args:
        decay: Share of the average that stays at each update, in [0, 1).
        name: Name of the average.

    Raises:
        SettingError: The decay is out of range, or the name is no name.
    """

    def __init__(self, decay: Varying[float] = 0.999, name: str = "per_update") -> None:
        for value in list_plain_values(decay):
            check_between("decay", value, 0, 1, high_included=False)
        self.decay = decay
        check_average_name("name", name)
        self.name = name
        self.names: Sequence[str] = (name,)

    def compute_shares(self, position: Position, age: int, images: int) -> tuple[float]:
        """Return what does not stay.

        Raises:
            SettingError: A curve's value is out of range.
        """
        decay = value_at(self.decay, position, "decay")
        check_between("decay", decay, 0, 1, high_included=False)
        return (1.0 - decay,)


class Copy:
    """No average: a copy of the generator, which is then itself sampled and measured.

    Args:
        name: Name of the copy.

    Raises:
        SettingError: The name is no name.
    """

    def __init__(self, name: str = "copy") -> None:
        check_average_name("name", name)
        self.name = name
        self.names: Sequence[str] = (name,)

    def compute_shares(self, position: Position, age: int, images: int) -> tuple[float]:
        """Return 1."""
        return (1.0,)
