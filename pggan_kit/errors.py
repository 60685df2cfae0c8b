"""The errors a user may see. Anything else that escapes is a bug of ours or of a plugin."""

import difflib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

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


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Check that a setting has one of the values that it may have.

    Raises:
        ValueError: it has not; the message begins with `name` and tells the nearest choice.
    """
    if value in choices:
        return
    listed = ", ".join(repr(choice) for choice in choices[:-1]) + f" or {choices[-1]!r}"
    near = difflib.get_close_matches(str(value), choices, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(f"{name} must be {listed}, not {value!r}{hint}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)`, or nothing where no known word is near."""
    candidates = list(known)
    found = get_close_matches(word, candidates, 1, 0.6)
    if not found:
        by_lower = {candidate.lower(): candidate for candidate in candidates}
        found = [by_lower[near] for near in get_close_matches(word.lower(), by_lower, 1, 0.6)]
    return f" (did you mean {found[0]}?)" if found else ""


def first_line(error: BaseException) -> str:
    """The first line of an error, with its type."""
    return f"{type(error).__name__}: {(str(error).strip() or '?').splitlines()[0]}"
