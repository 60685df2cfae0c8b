"""The errors a user may see. Anything else that escapes is a bug of ours or of a plugin."""

import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral, Real

TIME_LIMIT_REACHED = 75


class UserError(Exception):
    """The input was wrong: a config, a plugin, data, a run directory. The message says what to do. Exit code 2."""


class ConfigError(UserError):
    """A gin file or binding that cannot be used."""


class PluginError(UserError):
    """A plugin that cannot be loaded, or that breaks the contract of its kind."""


class DataError(UserError):
    """A data set that is missing, empty or damaged."""


class RunError(UserError):
    """A run directory or checkpoint that cannot be used as asked."""


class TrainingError(Exception):
    """The run started and then failed: a loss became non-finite, or a plugin's hook raised. Exit code 1."""


class DivergedError(TrainingError):
    """A loss or gradient became non-finite, and `train.non_finite` knows no further: it would come so again."""


class Interrupted(Exception):
    """The run was asked to stop; it was saved first and can be resumed.

    Args:
        signal: the one that asked; None where `train.time_limit` did.
        message: says how to go on.

    Attributes:
        exit_code: 128 + `signal`, or 75 (sysexits' "try again later") at the time limit.
    """

    def __init__(self, signal: int | None, message: str) -> None:
        super().__init__(message)
        self.signal = signal
        self.exit_code = TIME_LIMIT_REACHED if signal is None else 128 + signal


class SkipImage(DataError):
    """Raised by a data set's `image(i)` for an image that is to be left out and counted, not to stop the run."""


class SettingError(ValueError):
    """A setting of a component or of the experiment has a wrong value.

    Args:
        setting: its name, which is that of a parameter.
        complaint: the rest of the sentence that begins with its name, e.g. `must be at least 1, and is 0`.
    """

    def __init__(self, setting: str, complaint: str) -> None:
        super().__init__(f"{setting} {complaint}")
        self.setting = setting
        self.complaint = complaint


Checked = float | None | Mapping[int, float | None]
"""A number, None, or a dict that holds one for each stage."""


def check_at_least(name: str, value: Checked, least: float, instead: str = "", *, whole: bool = False) -> None:
    """Check that a setting, if it is not None, is a number of at least `least`.

    Args:
        name: of the setting.
        value: of the setting; of a dict per stage, each value is checked.
        least: smallest value that it may have.
        instead: what the setting may be instead, e.g. `None for all`.
        whole: whether it must be a whole number.

    Raises:
        SettingError: a smaller value, NaN, or no such number.
    """
    wanted = "must be a whole number of at least" if whole else "must be at least"
    for number in _numbers_of(value):
        fits = _is_number(number) and number >= least and (isinstance(number, Integral) or not whole)
        if not fits:
            raise SettingError(name, f"{wanted} {least}{_or(instead)}, and is {number!r}")


def check_above(name: str, value: Checked, bound: float, instead: str = "") -> None:
    """Check that a setting, if it is not None, is a number above `bound`; see `check_at_least`.

    Raises:
        SettingError: a value that is not above it, NaN, or no number.
    """
    for number in _numbers_of(value):
        if not (_is_number(number) and number > bound):
            raise SettingError(name, f"must be above {bound}{_or(instead)}, and is {number!r}")


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
        name, value, instead: see `check_at_least`.
        low, high: bounds of the setting.
        low_included, high_included: whether the setting may equal the bound.

    Raises:
        SettingError: a value outside, NaN, or no number.
    """
    interval = f"{'[' if low_included else '('}{low}, {high}{']' if high_included else ')'}"
    for number in _numbers_of(value):
        inside = _is_number(number) and low <= number <= high
        if not inside or (number == low and not low_included) or (number == high and not high_included):
            raise SettingError(name, f"must be in {interval}{_or(instead)}, and is {number!r}")


def check_finite(name: str, value: Checked) -> None:
    """Check that a setting, if it is not None, is a finite number; see `check_at_least`.

    Raises:
        SettingError: infinity, NaN, or no number.
    """
    for number in _numbers_of(value):
        if not (_is_number(number) and math.isfinite(number)):
            raise SettingError(name, f"must be finite, and is {number!r}")


def _numbers_of(value: Checked) -> list[float]:
    values = value.values() if isinstance(value, Mapping) else (value,)
    return [number for number in values if number is not None]


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _or(instead: str) -> str:
    return f", or {instead}" if instead else ""


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Check that a setting has one of the values that it may have.

    Raises:
        SettingError: it has not; the message has the nearest choice.
    """
    if value in choices:
        return
    listed = repr(choices[-1])
    if len(choices) > 1:
        listed = ", ".join(repr(choice) for choice in choices[:-1]) + f" or {listed}"
    near = did_you_mean(str(value), choices)
    raise SettingError(name, f"must be {listed}, not {value!r}{suggest(None if near is None else repr(near))}")


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is nearest to a word, or None where no word is near."""
    candidates = list(known)
    near = get_close_matches(word, candidates, n=1)
    if near:
        return near[0]
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    near = get_close_matches(word.lower(), by_lower, n=1)
    return by_lower[near[0]] if near else None


def suggest(word: str | None) -> str:
    """Return ` (did you mean WORD?)`, the end of a message; nothing for None."""
    return "" if word is None else f" (did you mean {word}?)"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
