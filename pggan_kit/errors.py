"""The errors that a user may see, and the checks of settings that raise them.

Any other exception that reaches the user is a bug, here or in a plugin.
"""

import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Protocol

LARGEST_WHOLE_NUMBER = 2**63 - 1
"""Maximum whole number in a config or option, a seed included: torch and event files have 64 bits for it."""

TIME_LIMIT_REACHED = 75
"""Exit code at the time limit: "try again later" in sysexits.h."""


class UserError(Exception):
    """The input was wrong: a config, a plugin, data, a run directory. The message says what to do. Exit code 2."""


class ConfigError(UserError):
    """A gin file or binding that cannot be used."""


class PluginError(UserError):
    """A plugin that cannot be loaded, or that breaks the contract of its kind."""


class DataError(UserError):
    """A data set that is missing, empty or corrupt."""


class RunError(UserError):
    """A run directory or checkpoint that cannot be used as asked."""


class TrainingError(Exception):
    """The run started and then failed: a loss became NaN or infinite, or a plugin's hook raised. Exit code 1."""


class LostRanksError(TrainingError):
    """Another of the processes that train together has ended, or does not answer."""


class DivergedError(TrainingError):
    """A loss or gradient became NaN or infinite, and what `train.non_finite` allows has been tried."""


class UnforeseenError(TrainingError):
    """An exception that nobody foresaw: a bug, here or in a plugin. The message says where; its cause is the exception.

    Attributes:
        log: The file that keeps the traceback; None where there is none.
    """

    log: Path | None = None


class Interrupted(Exception):
    """The run was asked to stop. It has saved its state and can be resumed.

    Args:
        signal: Number of the signal; None at the time limit (`train.time_limit`).
        message: How to continue.

    Attributes:
        exit_code: 128 + `signal`, or 75 at the time limit.
    """

    def __init__(self, signal: int | None, message: str) -> None:
        super().__init__(message)
        self.signal = signal
        if signal is None:
            self.exit_code = TIME_LIMIT_REACHED
        else:
            self.exit_code = 128 + signal


FORESEEN = (UserError, TrainingError, Interrupted)
"""Exceptions whose messages are for users. Any other is a bug."""


class SkipImage(DataError):
    """Raised by a data set's `image(i)` for an image that is left out and counted, without ending the run."""


class SettingError(ValueError):
    """A setting of a component or of the experiment has a wrong value.

    Args:
        setting: Name of the setting, which is that of a parameter.
        complaint: Rest of the sentence that begins with the name, e.g. `must be at least 1, and is 0`.
    """

    def __init__(self, setting: str, complaint: str) -> None:
        super().__init__(f"{setting} {complaint}")
        self.setting = setting
        self.complaint = complaint


class _Moving(Protocol):
    """A curve over the clock, which `schedule.py` describes."""

    def at(self, position: Any) -> float:
        """Return the value at a place on the clock."""


Checked = float | None | _Moving | Mapping[int, float | None] | Mapping[int, float | _Moving]
"""A number, None, a curve, or a dict that holds one for each stage. The values of a curve are not checked: they are not
known before the schedule is."""


def check_at_least(name: str, value: Checked, least: float, instead: str = "", *, whole: bool = False) -> None:
    """Check that a setting, if it is not None, is a number of at least `least`.

    Args:
        name: Name of the setting.
        value: Value of the setting. Each value of a dict per stage is checked, but not those of a curve.
        least: Smallest allowed value.
        instead: Alternative that the message names, e.g. `None for all`.
        whole: Whether the number must be whole.

    Raises:
        SettingError: The value is smaller, NaN, or no such number.
    """
    wanted = "must be a whole number of at least" if whole else "must be at least"
    for number in _numbers_of(value):
        fits = _is_number(number) and number >= least and (isinstance(number, Integral) or not whole)
        if not fits:
            raise SettingError(name, f"{wanted} {least}{_name_alternative(instead)}, and is {number!r}")


def check_above(name: str, value: Checked, bound: float, instead: str = "") -> None:
    """Check that a setting, if it is not None, is a number above `bound`; see `check_at_least`.

    Raises:
        SettingError: The value is not above it, NaN, or no number.
    """
    for number in _numbers_of(value):
        if not (_is_number(number) and number > bound):
            raise SettingError(name, f"must be above {bound}{_name_alternative(instead)}, and is {number!r}")


def check_between(
    name: str,
    value: Checked,
    low: float,
    high: float,
    *,
    low_included: bool = True,
    high_included: bool = True,
    instead: str = "",
) -> None:
    """Check that a setting, if it is not None, is a number from `low` to `high`; see `check_at_least`.

    Args:
        name: Name of the setting.
        value: Value of the setting.
        low: Lower bound.
        high: Upper bound.
        low_included: Whether the setting may equal the lower bound.
        high_included: Whether the setting may equal the upper bound.
        instead: Alternative that the message names.

    Raises:
        SettingError: The value is outside, NaN, or no number.
    """
    # The interval as mathematicians write it: ( and ) leave the bound out.
    opening = "[" if low_included else "("
    closing = "]" if high_included else ")"
    interval = f"{opening}{low}, {high}{closing}"

    # A setting may have one number for each stage.
    for number in _numbers_of(value):
        inside = _is_number(number) and low <= number <= high
        if not inside or (number == low and not low_included) or (number == high and not high_included):
            raise SettingError(name, f"must be in {interval}{_name_alternative(instead)}, and is {number!r}")


def check_finite(name: str, value: Checked) -> None:
    """Check that a setting, if it is not None, is a finite number; see `check_at_least`.

    Raises:
        SettingError: The value is infinite, NaN, or no number.
    """
    for number in _numbers_of(value):
        # Whole numbers may be larger than any float.
        if not (_is_number(number) and abs(number) <= sys.float_info.max):
            raise SettingError(name, f"must be finite, and is {number!r}")


def check_count(name: str, value: object, least: int = 1) -> None:
    """Check that an argument of the Python API is a whole number of at least `least`; None is none.

    Raises:
        SettingError: It is not.
    """
    if value is None:
        raise SettingError(name, f"must be a whole number of at least {least}, and is None")
    check_at_least(name, value, least, whole=True)  # type: ignore[arg-type]


def check_seed(name: str, value: int) -> None:
    """Check that a setting can be a seed: a whole number from 0 to `LARGEST_WHOLE_NUMBER`.

    Raises:
        SettingError: It cannot.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or not 0 <= value <= LARGEST_WHOLE_NUMBER:
        raise SettingError(name, f"must be a whole number from 0 to {LARGEST_WHOLE_NUMBER}, and is {value!r}")


def _numbers_of(value: Checked) -> list[Any]:
    values = value.values() if isinstance(value, Mapping) else (value,)
    return [number for number in values if number is not None and not callable(getattr(number, "at", None))]


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _name_alternative(instead: str) -> str:
    return f", or {instead}" if instead else ""


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Check that a setting has one of the allowed values.

    Raises:
        SettingError: It has not. The message suggests the nearest choice.
    """
    if value in choices:
        return
    listed = repr(choices[-1])
    if len(choices) > 1:
        listed = ", ".join(repr(choice) for choice in choices[:-1]) + f" or {listed}"
    near = did_you_mean(str(value), choices)
    if near is not None:
        near = repr(near)
    raise SettingError(name, f"must be {listed}, not {value!r}{suggest(near)}")


def require_list(name: str, value: object) -> None:
    """Check that an argument of the Python API is a list of things, and not one thing alone.

    Args:
        name: Name of the argument.
        value: Value of the argument; a text would be taken for a list of its letters.

    Raises:
        ConfigError: It is no list; the message says how to write it.
    """
    if isinstance(value, (str, bytes, os.PathLike, Mapping)) or not isinstance(value, Iterable):
        raise ConfigError(f"{name} must be a list, not {value!r}: write {name}=[{value!r}]")


def require_path(name: str, value: object) -> Path:
    """Return an argument of the Python API that must be a path, as a path.

    Raises:
        ConfigError: It is none.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise ConfigError(f"{name} must be a path, not {value!r}")
    return Path(value)


def did_you_mean(word: object, known: Iterable[str]) -> str | None:
    """Return the known word that is nearest to a word, or None where no word is near."""
    word = str(word)
    candidates = list(known)
    near = get_close_matches(word, candidates, n=1)
    if near:
        return near[0]

    # A word in another case shares few letters with the one that was meant.
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    near = get_close_matches(word.lower(), by_lower, n=1)
    return by_lower[near[0]] if near else None


def suggest(word: str | None) -> str:
    """Return ` (did you mean WORD?)`, the end of a message; an empty text for None."""
    return "" if word is None else f" (did you mean {word}?)"


def quote_path(path: object) -> str:
    """Return a path as a shell takes it, for commands in messages."""
    return shlex.quote(str(path))


def iterate_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, and then each that caused the one before."""
    while error is not None:
        yield error
        error = error.__cause__


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where the message is empty."""
    return (read_message(error).strip() or type(error).__name__).splitlines()[0]


def read_message(error: BaseException) -> str:
    """Return an error's message; nothing where its class, which may be a plugin's, cannot make one."""
    try:
        return str(error)
    except Exception:  # what matters is the error itself, whose type and place are known
        return ""
