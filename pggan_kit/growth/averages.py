"""Average the generator's weights by a half-life in images, as every experiment does that binds nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from pggan_kit.components import Average
from pggan_kit.errors import SettingError, check_at_least, check_between
from pggan_kit.schedule import Curve, Position, Varying, value_at

BEST = "best"
"""Word with which `evaluate` chooses a width, and which no average has for a name."""


class HalfLife:
    """An exponential moving average whose memory is measured in images, whatever the batch size (StyleGAN2).

    Args:
        half_life: Images after which half of the average is new, at least 0; 0 makes it a copy.
        ramp_up: Largest half-life of a piece of G as a share of its age in images, in (0, 1], where the age counts from
            the start of the piece's stage. It keeps the average of a new block from remembering its random start. None
            for no such bound.
        name: Name of the average.

    Raises:
        SettingError: A value is out of range.
    """

    def __init__(
        self, half_life: Varying[float] = 10_000, ramp_up: float | None = 0.05, name: str = "half_life"
    ) -> None:
        for value in list_plain_values(half_life):
            check_at_least("half_life", value, 0)
        check_between("ramp_up", ramp_up, 0, 1, low_included=False, instead="None")
        check_average_name("name", name)
        self.half_life = half_life
        self.ramp_up = ramp_up
        self.name = name
        self.names: Sequence[str] = (name,)

    def compute_shares(self, position: Position, age: int, images: int) -> tuple[float]:
        """Return the share that is new after `images`.

        Raises:
            SettingError: A curve's value is out of range.
        """
        # A young piece forgets its random start sooner.
        half_life = value_at(self.half_life, position, "half_life")
        check_at_least("half_life", half_life, 0)
        if self.ramp_up is not None:
            half_life = min(half_life, self.ramp_up * age)
        if half_life <= 0:
            return (1.0,)
        return (1.0 - 0.5 ** (images / half_life),)


@runtime_checkable
class PowerAverage(Average, Protocol):
    """An average of which others of any width can be made; see `Average`."""

    exponents: Sequence[float]
    snapshots: int


def list_plain_values(setting: Varying[float]) -> list[float]:
    """Return the numbers in a setting that may vary; what a curve gives is known at a place on the clock alone."""
    values = [setting]
    if isinstance(setting, Mapping):
        values = list(setting.values())
    return [value for value in values if not isinstance(value, Curve)]  # type: ignore[misc]


def check_names(averages: Sequence[Average]) -> None:
    """Check that there is an average, and that each has a name of its own that a command can tell from a width.

    Raises:
        SettingError: There is none, or a name is no identifier, or two averages have one name.
    """
    names = list_names(averages)
    if not names:
        raise SettingError("averages", "must hold one at least: [@averages.Copy()] averages nothing")
    for name in names:
        check_average_name("averages", name)
        if names.count(name) > 1:
            raise SettingError(
                "averages",
                f"has two averages with the name {name}: give one of them another, in a scope of its own, e.g. "
                f"b/averages.HalfLife.name = 'b'",
            )


def check_average_name(setting: str, name: object) -> None:
    """Check that a text can be the name of an average, which a command can tell from a width and from a file.

    Args:
        setting: The setting that holds it, for the message.
        name: The name.

    Raises:
        SettingError: It cannot.
    """
    is_text = isinstance(name, str) and name[:1].isalpha() and name.replace("_", "").replace(".", "").isalnum()
    if not is_text or str(name).endswith(".pt") or name == BEST:
        raise SettingError(
            setting, f"must name an average by a letter, and then letters, digits, _ and ., not by {name!r}"
        )
    try:
        float(str(name))
    except ValueError:
        return
    raise SettingError(setting, f"must name an average by no number, which a command takes for a width, as {name!r} is")


def list_names(averages: Sequence[Average]) -> list[str]:
    """Return the names of all averages in their order."""
    return [name for average in averages for name in average.names]
