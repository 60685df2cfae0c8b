"""Trials as jobs of a Slurm cluster (extra `slurm`)."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pggan_kit import ConfigError, SettingError, Trial, check_above, check_at_least, check_finite
from pggan_plugins.launchers.processes import FINAL, KILLED, choose_start_code, count_retries_left, start_process

POLL_SECONDS = 1.0
"""Seconds between checks for results of jobs."""

PROCESS_SECONDS = 0.2
"""Seconds between checks whether a trial's process has exited."""

QUEUE_SECONDS = 30.0
"""Seconds between looks at Slurm's queue, which find jobs that have ended without a result."""

RESUBMIT_SECONDS = 30.0
"""Seconds between tries to submit a trial again that Slurm does not accept."""

REFUSED_SECONDS = 3600.0
"""Seconds after which these tries end, unless another trial still runs."""

ANSWER_SECONDS = 60
"""Seconds in which Slurm is expected to say what is in its queue."""

SAVE_SECONDS = 120
"""Seconds before a job's time limit at which Slurm signals it, so that its trial saves."""

SHORTEST_MINUTES = 5
"""Minimum time limit of a job: with less, a trial would mostly start and save."""

MEMORY_UNIT = 1024
"""MiB in a GiB."""

UNLIMITED_REQUEUES = 10**9
"""Number of times that submitit may requeue a job at its time limit: as often as it takes."""

KEPT_VARIABLES = ("SLURM_CONF", "SUBMITIT_PREEMPT_SIGNAL")
"""Environment variables that say how to reach the cluster, and not in which job this process runs."""

SETTINGS = {
    "array": "jobs",
    "cpus-per-task": "cores",
    "gpus-per-node": "gpus",
    "mem": "memory",
    "partition": "partition",
    "time": "minutes",
}
"""Options of `sbatch` that a setting of its own stands for."""

OWN_OPTIONS = {
    "signal": "a trial saves upon the signal that this launcher asks for",
    "ntasks": "a trial is one task",
    "ntasks-per-node": "a trial is one task",
    "nodes": "a trial is one task",
    "requeue": "a trial that is preempted or out of time goes on when its job is requeued",
    "no-requeue": "a trial that is preempted or out of time goes on when its job is requeued",
    "output": "submitit finds what a job printed in its own file",
    "error": "submitit finds what a job printed in its own file",
    "open-mode": "submitit finds what a job printed in its own file",
    "chdir": "a job must not find a module in its working directory",
}
"""Options of `sbatch` that a user cannot choose, and why."""

WARNINGS = ("SIGUSR1", "SIGUSR2")
"""Signals by which Slurm may be asked to warn a job before its time limit; submitit asks for one of them.

Names, since Windows, which has no Slurm either, must be able to import this.
"""

Outcome = tuple[int, bool]
"""What a job returns: its trial's exit code, and whether Slurm had sent SIGTERM to it."""


class Slurm:
    """A Slurm job for each trial, all submitted as one array; what is preempted or reaches its time limit goes on.

    Before the time limit, or where Slurm preempts it, a trial saves, and its job is requeued; none of this counts as a
    failure. A job that is lost, for example with its node, is submitted again. `--out` must be in a folder that all
    nodes share, and pggan_kit must be installed on each. The command waits for its jobs: run it where it may stay, such
    as on the login node in tmux, or in a small job of its own.

    Args:
        partition: The partition; None: the cluster's default.
        minutes: The time limit of a job, at least 5. A trial that takes longer goes on after it has been requeued.
        cores: The cores of each trial, at least 1: its OMP_NUM_THREADS too.
        memory: The memory of each trial in GiB, above 0; None: the partition's default.
        gpus: The GPUs of each trial, at least 0.
        jobs: The number of trials that may run at once, at least 1. None: as many as the cluster lets run.
        retries: The number of times that a trial which failed, or whose job was lost, is run again, at least 0.
        options: Further options of `sbatch` by their long names, e.g. `{"account": "vision", "qos": "low"}`; True for
            one without a value. Those by which trials are saved, requeued and read are not among them.

    Raises:
        ValueError: A value out of range.
        ConfigError: The package submitit, or Slurm's commands, are not installed.
    """

    def __init__(
        self,
        partition: str | None = None,
        minutes: int = 60,
        cores: int = 1,
        memory: float | None = None,
        gpus: int = 0,
        jobs: int | None = None,
        retries: int = 3,
        options: Mapping[str, str | int | bool] | None = None,
    ) -> None:
        check_at_least("minutes", minutes, SHORTEST_MINUTES)
        check_at_least("cores", cores, 1)
        check_at_least("gpus", gpus, 0)
        check_at_least("jobs", jobs, 1, instead="None")
        check_at_least("retries", retries, 0)
        check_above("memory", memory, 0, instead="None")
        check_finite("memory", memory)
        for option, value in (options or {}).items():
            _check_option(option, value)
        self.partition = partition
        self.minutes = minutes
        self.cores = cores
        self.memory = memory
        self.gpus = gpus
        self.jobs = jobs
        self.retries = retries
        self.options = dict(options or {})

        # Settings are checked before a library or a command is missed.
        _import_submitit()
        _require_commands()

    def launch(self, trials: Sequence[Trial], ended: Callable[[Trial, int], None] | None = None) -> list[int]:
        """Run each trial to its end; see `pggan_kit.components.Launcher`.

        Raises:
            ConfigError: Slurm does not accept the jobs; later, those that are submitted again, for an hour in which
                nothing runs any more.
        """
        if not trials:
            return []

        # submitit's files, which all nodes must see: beside the logs, as these are in the shared folder.
        logs = next((trial.log.parent for trial in trials if trial.log is not None), Path.cwd())
        folder = Path(tempfile.mkdtemp(prefix="slurm-", dir=logs)).resolve()
        launch = _Launch(self, self._make_executor(folder), trials, ended)
        try:
            launch.submit([(number, self.retries) for number in range(len(trials))])
            while launch.jobs or launch.waiting:
                time.sleep(POLL_SECONDS)
                launch.collect_results()
                launch.submit_waiting()
        except BaseException:
            launch.cancel()
            raise
        finally:
            # What a job printed beside its trial's log says why it failed; nobody needs it otherwise.
            if not any(launch.codes.get(number) for number in range(len(trials))):
                shutil.rmtree(folder, ignore_errors=True)
        return [launch.codes[number] for number in range(len(trials))]

    def _make_executor(self, folder: Path) -> Any:
        """Return submitit's executor, which keeps its files in a folder."""
        submitit = _import_submitit()
        executor = submitit.SlurmExecutor(folder, max_num_timeout=UNLIMITED_REQUEUES)
        executor.update_parameters(**self.list_parameters(folder))
        return executor

    def list_parameters(self, folder: Path) -> dict[str, Any]:
        """Return the parameters of submitit's executor, by its names for them."""
        # A lost node's jobs are requeued by Slurm itself. `python -m` would look in the working directory first, and
        # then run a `random.py` that lies there.
        options = {"requeue": True, "chdir": str(folder), **self.options}
        parameters: dict[str, Any] = {
            "job_name": "pggan_kit",
            "time": self.minutes,
            "signal_delay_s": SAVE_SECONDS,
            "cpus_per_task": self.cores,
            "srun_args": [f"--cpus-per-task={self.cores}"],  # which srun no longer takes from sbatch
            "stderr_to_stdout": True,
            "additional_parameters": options,
        }
        if self.partition is not None:
            parameters["partition"] = self.partition
        if self.memory is not None:
            # To Slurm, 0 is all of a node.
            parameters["mem"] = f"{math.ceil(self.memory * MEMORY_UNIT)}MB"
        if self.gpus:
            parameters["gpus_per_node"] = self.gpus
        if self.jobs is not None:
            parameters["array_parallelism"] = self.jobs
        return parameters


def _check_option(option: str, value: str | int | bool) -> None:
    """Check that an option of `sbatch` is neither a setting's nor this launcher's own.

    Raises:
        SettingError: It is, or its value is False.
    """
    name = option.replace("_", "-")
    setting = SETTINGS.get(name)
    if setting is not None:
        raise SettingError("options", f"must not have {option}: set {setting} instead")
    reason = OWN_OPTIONS.get(name)
    if reason is not None:
        raise SettingError("options", f"must not have {option}: {reason}")
    if value is False:
        raise SettingError("options", f"must not have {option} with the value False: leave it out")


class _Launch:
    """The jobs of one `launch`.

    Attributes:
        codes: The last exit code of each trial that is done, by its number.
        jobs: The job of each trial that has one, by number.
        retries: The retries that are left to each trial, by number.
        waiting: Number and retries left of each trial that is to be submitted again.
    """

    def __init__(
        self, slurm: Slurm, executor: Any, trials: Sequence[Trial], ended: Callable[[Trial, int], None] | None
    ) -> None:
        self.slurm = slurm
        self.executor = executor
        self.trials = trials
        self.ended = ended
        self.codes: dict[int, int] = {}
        self.jobs: dict[int, Any] = {}
        self.retries: dict[int, int] = {}
        self.waiting: list[tuple[int, int]] = []
        self._looked = time.monotonic()
        self._missing: set[str] = set()
        self._refused: float | None = None
        self._tried = -math.inf

    def submit(self, numbers: Sequence[tuple[int, int]]) -> None:
        """Submit trials, given with the retries that are left to them, as one array of jobs.

        Raises:
            ConfigError: Slurm does not accept them.
        """
        errors = _import_submitit().core.utils
        submitted = []
        try:
            with _outside_of_jobs(), self.executor.batch():
                for number, retries in numbers:
                    trial = self.trials[number]
                    here = replace(trial, folder=trial.folder or Path.cwd())
                    submitted.append((number, self.executor.submit(TrialJob(here, self.slurm.cores))))
                    self.retries[number] = retries
        except (errors.FailedJobError, errors.FailedSubmissionError, OSError) as error:
            raise ConfigError(f"launchers.Slurm: the jobs cannot be submitted: {error}") from error
        self.jobs.update(submitted)

    def submit_waiting(self) -> None:
        """Submit trials that are to be run again, as far as `jobs` allows beside those that the queue still has.

        Those that Slurm does not accept go on waiting, since its controller may be back soon, or a limit be free.

        Raises:
            ConfigError: Slurm has not accepted any for a long time, and nothing else runs that an error would stop.
        """
        room = len(self.waiting)
        if self.slurm.jobs is not None:
            room = max(0, self.slurm.jobs - len(self.jobs))
        again = self.waiting[:room]
        now = time.monotonic()
        if not again or now - self._tried < RESUBMIT_SECONDS:
            return

        self._tried = now
        try:
            self.submit(again)
        except ConfigError as error:
            if self._refused is None:
                self._refused = now
                names = ", ".join(self.trials[number].name for number, _ in again)
                warnings.warn(
                    f"launchers.Slurm: {names} cannot be submitted again, which is tried every {RESUBMIT_SECONDS:g} "
                    f"seconds: {error}",
                    stacklevel=2,
                )
            if not self.jobs and now - self._refused >= REFUSED_SECONDS:
                raise
            return
        self._refused = None
        self._tried = -math.inf
        del self.waiting[:room]

    def collect_results(self) -> None:
        """Take the jobs that have ended off the list, and note which trials are run again."""
        lost = self._find_lost()
        for number, job in list(self.jobs.items()):
            if _has_result(job):
                code, stopped_by_slurm = _read_outcome(job)
            elif job.job_id in lost:
                code, stopped_by_slurm = KILLED, False
            else:
                continue
            del self.jobs[number]

            # Slurm stops a job that it preempts with SIGTERM: the trial has saved, and has not failed.
            left = count_retries_left(code, self.retries[number])
            if stopped_by_slurm and code not in FINAL:
                left = self.retries[number]
            if left is not None:
                self.waiting.append((number, left))
                continue
            self.codes[number] = code
            if self.ended is not None:
                self.ended(self.trials[number], code)

    def _find_lost(self) -> set[str]:
        """Return the jobs that have ended without a result: two looks in a row do not find them in the queue.

        A file system may show a result later than the queue shows the end.
        """
        if time.monotonic() - self._looked < QUEUE_SECONDS:
            return set()
        self._looked = time.monotonic()
        queue = list_queue()
        if queue is None:
            return set()
        missing = {job.job_id for job in self.jobs.values()} - queue
        lost = missing & self._missing
        self._missing = missing
        return lost

    def cancel(self) -> None:
        """Cancel all jobs, so that running trials save, and wait until they have ended.

        A further KeyboardInterrupt ends the waiting.
        """
        if not self.jobs:
            return
        with contextlib.suppress(KeyboardInterrupt):
            for job in self.jobs.values():
                job.cancel(check=False)
            ids = {job.job_id for job in self.jobs.values()}
            while (queue := list_queue()) is None or ids & queue:
                time.sleep(POLL_SECONDS)


class TrialJob:
    """What a job does: run a trial's process. submitit calls it on a node, and `checkpoint` before the job is requeued.

    Slurm signals each process of a job. The trial gets SIGTERM from Slurm itself, as it belongs to the job's group of
    processes, so it is not sent a second one, upon which it would exit without saving.

    Args:
        trial: The trial, with its working directory.
        cores: Its OMP_NUM_THREADS.
    """

    def __init__(self, trial: Trial, cores: int) -> None:
        self.trial = trial
        self.cores = cores
        self._process: subprocess.Popen[bytes] | None = None
        self._requeue: dict[int, Callable[[int, None], object]] = {}
        self._warning: int | None = None
        self._stopped_by_slurm = False

    def __call__(self) -> Outcome:
        """Run the trial's process to its end, unless Slurm warns of the job's: submitit then requeues it, and exits."""
        self._receive_signals()
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.cores)}
        try:
            self._process = start_process(self.trial, environment, before=_ignore_warnings, own_session=False)
        except OSError as error:
            return choose_start_code(error), False
        while (code := self._process.poll()) is None:
            time.sleep(PROCESS_SECONDS)
            if self._warning is not None:
                self._requeue[self._warning](self._warning, None)
        return code, self._stopped_by_slurm

    def checkpoint(self) -> Any:
        """Stop the trial, which saves, and return what the requeued job does."""
        if self._process is not None:
            if not self._stopped_by_slurm:
                self._process.terminate()
            self._process.wait()
        return _import_submitit().helpers.DelayedSubmission(TrialJob(self.trial, self.cores))

    def _receive_signals(self) -> None:
        """Note signals only: submitit's handler calls `checkpoint`, and nobody can wait for a process in a handler."""
        signal.signal(signal.SIGTERM, self._note_stop)
        for name in WARNINGS:
            number = signal.Signals[name]
            handler = signal.getsignal(number)
            if callable(handler):
                self._requeue[number] = handler
                signal.signal(number, self._note_warning)

    def _note_stop(self, number: int, frame: object) -> None:
        self._stopped_by_slurm = True

    def _note_warning(self, number: int, frame: object) -> None:
        self._warning = number


def _ignore_warnings() -> None:
    """Let this process outlive the signal by which Slurm warns a job, to which submitit reacts."""
    for name in WARNINGS:
        signal.signal(signal.Signals[name], signal.SIG_IGN)


def list_queue() -> set[str] | None:
    """Return the ids of this user's jobs that have not ended; None if Slurm does not answer."""
    command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=ANSWER_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    return set(answer.stdout.split())


def _has_result(job: Any) -> bool:
    return bool(job.paths.result_pickle.exists())


def _read_outcome(job: Any) -> Outcome:
    """Return what a job returned; if it failed before its trial started, exit code 1."""
    try:
        code, stopped_by_slurm = job.result()
    except RuntimeError:  # submitit's errors; the job's own output, which is kept, says more
        return 1, False
    return code, stopped_by_slurm


@contextlib.contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide within a block that this process itself runs in a job, whose settings would pass on to new jobs."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    with _import_submitit().helpers.clean_env():
        os.environ.update(kept)
        yield


def _import_submitit() -> Any:
    """Import submitit.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import submitit
    except ImportError:
        raise ConfigError("launchers.Slurm needs the package submitit: pip install 'pggan_kit[slurm]'") from None
    return submitit


def _require_commands() -> None:
    """Check that Slurm's commands are there.

    Raises:
        ConfigError: One is missing.
    """
    for command in ("sbatch", "srun", "squeue", "scancel"):
        if shutil.which(command) is None:
            raise ConfigError(
                f"launchers.Slurm needs the command {command}, which is not on the PATH: start the ablation on a node "
                "of the cluster, or choose launchers.Local"
            )
