"""The errors a user may see. Anything else that escapes is a bug of ours or of a plugin."""

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
