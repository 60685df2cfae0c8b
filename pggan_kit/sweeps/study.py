"""The study of a sweep: Optuna's trials in a journal file, which several processes and machines share."""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import Timeout

from pggan_kit.errors import ConfigError, RunError
from pggan_kit.sweeps.plan import SweepPlan
from pggan_kit.sweeps.spaces import Range, Value
from pggan_kit.system.locks import acquire, hold_when_free, is_locked
from pggan_kit.system.seeding import derive

JOURNAL = "study.journal"
"""Name of the study's file in a sweep's folder."""

LOCKS = "locks"
"""Name of the folder of lock files."""

HASH = "sweep"
"""Name of the study's attribute with the hash of its plan."""

WHY = "ended"
"""Name of a trial's attribute that says why it ended early."""

ATTEMPTS = "attempts"
"""Name of a trial's attribute with how far it was as its last process began, and the number of processes from there."""

REDUCTION = 2
"""Share of trials that `halving` and `hyperband` stop at a stage: all but one in this many."""

LARGEST_SAMPLER_SEED = 2**32
"""Number of seeds of Optuna's samplers."""


def import_optuna() -> Any:
    """Import Optuna, whose log then has warnings alone.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise ConfigError("sweeps and `ablate.tune` need optuna: pip install 'pggan_kit[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def locate_trial_lock(folder: Path, number: int) -> Path:
    """Return the file whose lock the process of a trial holds."""
    return folder / LOCKS / f"{number}.lock"


class Study:
    """The trials of a sweep.

    What is suggested depends on the plan, the number of the trial and the trials that have ended: not on the process.

    Args:
        plan: The plan.
        folder: The sweep's folder.

    Raises:
        ConfigError: Optuna is not installed.
        RunError: The journal is of another sweep, or damaged.
    """

    def __init__(self, plan: SweepPlan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self._optuna = import_optuna()
        with self._hold():
            self._study = self._open()

    @contextlib.contextmanager
    def _hold(self) -> Iterator[None]:
        """Keep other processes from taking or ending trials within a block."""
        with hold_when_free(self.folder / LOCKS / "study.lock", lambda holder: None):
            yield

    def _open(self) -> Any:
        """Open the study, or begin it."""
        optuna = self._optuna
        # The lock that Optuna makes beside the file is a link to it, and holds in a folder of a network as well.
        path = (self.folder / JOURNAL).resolve()
        direction = "minimize" if self.plan.direction == "lower" else "maximize"
        try:
            storage = optuna.storages.JournalStorage(_JournalFile(optuna.storages.journal, path))
            # The pruner `hyperband` draws by this name.
            study = optuna.create_study(
                storage=storage,
                study_name="sweep",
                direction=direction,
                sampler=self._make_sampler(0),
                pruner=self._make_pruner(),
                load_if_exists=True,
            )
            attributes = study.user_attrs
            if not attributes and not study.get_trials(deepcopy=False):
                study.set_user_attr(HASH, self.plan.hash)
                attributes = {HASH: self.plan.hash}
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{path} is damaged, or no journal of Optuna: {type(error).__name__}: {error}. Put back a copy of it, "
                "or begin in another folder with --out"
            ) from error
        if attributes.get(HASH) != self.plan.hash:
            raise RunError(
                f"{path} is the study of another sweep, with other parameters or another experiment: begin in another "
                "folder with --out"
            )
        return study

    def _make_sampler(self, number: int) -> Any:
        """Return the sampler of a trial, which needs nothing of an earlier process."""
        optuna = self._optuna
        seed = derive(self.plan.search_seed, "sweep", number) % LARGEST_SAMPLER_SEED
        if self.plan.search == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.plan.startup)

    def _make_pruner(self) -> Any:
        """Return Optuna's pruner; where there is none, or the median decides, the one that stops nothing."""
        pruners = self._optuna.pruners
        kind = self.plan.pruner
        if kind == "halving":
            return pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)
        if kind == "hyperband":
            stages = len(self.plan.stages)
            return pruners.HyperbandPruner(min_resource=1, max_resource=stages, reduction_factor=REDUCTION)
        return pruners.NopPruner()

    @contextlib.contextmanager
    def take_trial(self) -> Iterator[OpenTrial | None]:
        """Yield a trial that nobody runs: one that an earlier process left, or a new one; None if there is none.

        Within the block no other process takes it.
        """
        with contextlib.ExitStack() as stack:
            with self._hold():
                number = self._take_left(stack)
                if number is None and len(self._study.get_trials(deepcopy=False)) < self.plan.trials:
                    number = self._begin(stack)
            yield None if number is None else OpenTrial(self, number)

    def _take_left(self, stack: contextlib.ExitStack) -> int | None:
        """Return the number of the first trial that has not ended and that nobody runs; hold its lock."""
        for trial in self._study.get_trials(deepcopy=False):
            if not trial.state.is_finished() and self._lock(trial.number, stack):
                return int(trial.number)
        return None

    def _begin(self, stack: contextlib.ExitStack) -> int:
        """Begin a trial, and return its number; hold its lock."""
        number = len(self._study.get_trials(deepcopy=False))
        if not self._lock(number, stack):
            raise RunError(f"{locate_trial_lock(self.folder, number)} is held by a process of another study")
        self._study.ask()
        return number

    def _lock(self, number: int, stack: contextlib.ExitStack) -> bool:
        """Hold the lock of a trial until a stack is closed; return whether no other process holds it."""
        path = locate_trial_lock(self.folder, number)
        try:
            lock = acquire(path)
        except Timeout:
            return False
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror}") from error

        # Two processes of a sweep without locks would train the same trial.
        if lock is None:
            raise RunError(
                f"the file system of {self.folder} has no locks, which keep the processes of a sweep apart: name "
                "another folder with --out"
            )
        stack.callback(lock.release)
        return True

    def suggest(self, number: int) -> dict[str, Value]:
        """Return the values of a trial's parameters, which are the same each time."""
        with self._hold():
            # Nothing of the sampler remains from an earlier trial.
            self._study.sampler = self._make_sampler(number)
            trial = self._restore(number)
            return {name: _suggest_value(trial, name, own_range) for name, own_range in self.plan.space.items()}

    def report(self, number: int, step: int, value: float) -> None:
        """Record the value of a trial at the end of a stage."""
        self._restore(number).report(value, step)

    def asks_to_prune(self, number: int) -> bool:
        """Return whether the pruner stops a trial, by its last value."""
        if self.plan.pruner == "median":
            return self._is_worse_than_median(number)
        return bool(self._restore(number).should_prune())

    def _is_worse_than_median(self, number: int) -> bool:
        """Return whether a trial's last value is worse than the median of trials trained to their ends, at its stage.

        Optuna's `MedianPruner` takes the best value so far. Here values of different stages cannot be compared: where
        they become worse with the size of the images, a good value of the first stage would protect a trial for good.
        """
        trials = self._study.get_trials(deepcopy=False)
        values = trials[number].intermediate_values
        step = max(values)
        done = self._optuna.trial.TrialState.COMPLETE
        others = [trial.intermediate_values[step] for trial in trials if trial.state == done]
        if len(others) < self.plan.startup:
            return False
        median = statistics.median(others)
        is_above: bool = values[step] > median
        is_below: bool = values[step] < median
        return is_above if self.plan.direction == "lower" else is_below

    def end(self, number: int, value: float | None, why: str = "") -> None:
        """End a trial.

        Args:
            number: Its number.
            value: Its value at the end of the last stage; None where it did not get there.
            why: Why it did not.
        """
        state = self._optuna.trial.TrialState
        with self._hold():
            if value is None:
                # A trial without a value counts as worse than all that have one.
                self._restore(number).set_user_attr(WHY, why)
                self._study.tell(number, state=state.PRUNED)
            else:
                self._study.tell(number, value)

    def begin_attempt(self, number: int, progress: str) -> int:
        """Count that a process begins a trial, or goes on with it; return how many have since it last got further.

        It is written before the process does anything else, since one that is killed cannot say so.

        Args:
            number: Number of the trial.
            progress: How far the trial is.
        """
        trial = self._restore(number)
        earlier_progress, attempts = trial.user_attrs.get(ATTEMPTS, (progress, 0))
        if earlier_progress != progress:
            attempts = 0
        trial.set_user_attr(ATTEMPTS, [progress, attempts + 1])
        return int(attempts) + 1

    def forget_attempt(self, number: int) -> None:
        """Take back what the last `begin_attempt` of a trial has counted."""
        trial = self._restore(number)
        progress, attempts = trial.user_attrs[ATTEMPTS]
        trial.set_user_attr(ATTEMPTS, [progress, attempts - 1])

    def _restore(self, number: int) -> Any:
        """Return a trial that was begun, as Optuna gives it where it begins."""
        frozen = self._study.get_trials(deepcopy=False)[number]
        return self._optuna.trial.Trial(self._study, frozen._trial_id)

    def list_trials(self) -> list[dict[str, Any]]:
        """Return a row for each trial that has begun.

        Returns:
            `trial` (its number), `state` (`done`, `ended early`, `running` or `left`, if no process runs it), `value`
            (at the end of the last stage, or None), `stages` (values by the size of the stage), `why` (why it ended
            early), `parameters` (their values) and `attempts` (how far the trial was as processes began that failed or
            were killed, and their number; empty if there is none).
        """
        rows = []
        with self._hold():
            trials = self._study.get_trials(deepcopy=False)
            # To look at a lock is to hold it for an instant, in which no other process may ask for it.
            left = {trial.number for trial in trials if self._is_left(trial)}
        for trial in trials:
            state = "left" if trial.number in left else "running"
            if trial.state == self._optuna.trial.TrialState.COMPLETE:
                state = "done"
            elif trial.state.is_finished():
                state = "ended early"
            attempts = trial.user_attrs.get(ATTEMPTS)
            values = {self.plan.sizes[step - 1]: value for step, value in sorted(trial.intermediate_values.items())}
            rows.append(
                {
                    "trial": trial.number,
                    "state": state,
                    "value": trial.value if state == "done" else None,
                    "stages": values,
                    "why": trial.user_attrs.get(WHY, ""),
                    "parameters": dict(trial.params),
                    "attempts": attempts if attempts and attempts[1] else [],
                }
            )
        return rows

    def _is_left(self, trial: Any) -> bool:
        """Return whether a trial has not ended, and no process runs it."""
        return not trial.state.is_finished() and not is_locked(locate_trial_lock(self.folder, trial.number))


class _JournalFile:
    """Optuna's journal file, which is made whole before a line is appended.

    A full disk or a lack of power may leave half a line. What is appended to it would make the whole study unreadable.

    Args:
        journals: The module `optuna.storages.journal`.
        path: The file.
    """

    def __init__(self, journals: Any, path: Path) -> None:
        self._path = path
        self._file = journals.JournalFileBackend(str(path))
        self._lock = journals.JournalFileSymlinkLock(str(path))

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Return the lines from a number on; see Optuna's `BaseJournalBackend`."""
        lines: Iterator[dict[str, Any]] = self._file.read_logs(log_number_from)
        return lines

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append lines."""
        if not self._ends_with_a_line():
            self._cut_half_a_line()
        self._file.append_logs(logs)

    def _ends_with_a_line(self) -> bool:
        with open(self._path, "rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return True
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _cut_half_a_line(self) -> None:
        """Cut the file after its last whole line, unless another process is just writing the rest."""
        self._lock.acquire()
        try:
            with open(self._path, "r+b") as file:
                file.truncate(file.read().rfind(b"\n") + 1)
        finally:
            self._lock.release()


class OpenTrial:
    """A trial that this process runs.

    Args:
        study: The study.
        number: Number of the trial.

    Attributes:
        values: Values of the parameters.
    """

    def __init__(self, study: Study, number: int) -> None:
        self.number = number
        self.values = study.suggest(number)
        self._study = study

    @property
    def stage_values(self) -> Mapping[str, float]:
        """The values at the ends of its stages, by their sizes."""
        stages: Mapping[str, float] = self._study.list_trials()[self.number]["stages"]
        return stages

    def report(self, step: int, value: float) -> None:
        """Record the value at the end of a stage, of which `step` is the number among those that are measured."""
        self._study.report(self.number, step, value)

    def asks_to_prune(self) -> bool:
        """Return whether the pruner stops it."""
        return self._study.asks_to_prune(self.number)

    def begin_attempt(self, progress: str) -> int:
        """Count this process; return how many there were since the trial last got further, see `Study`."""
        return self._study.begin_attempt(self.number, progress)

    def forget_attempt(self) -> None:
        """Take back that this process counts."""
        self._study.forget_attempt(self.number)

    def end(self, value: float | None, why: str = "") -> None:
        """End it, with its value, or without one and why."""
        self._study.end(self.number, value, why)


def _suggest_value(trial: Any, name: str, own_range: Range) -> Value:
    """Return the value of a parameter, which Optuna draws the first time."""
    value: Value
    if own_range.kind == "choice":
        value = trial.suggest_categorical(name, list(own_range.choices))
    elif own_range.kind == "integer":
        value = trial.suggest_int(name, own_range.low, own_range.high)
    else:
        value = trial.suggest_float(name, own_range.low, own_range.high, log=own_range.kind == "log")
    return value
