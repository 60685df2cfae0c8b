"""Trials as tasks of a Ray cluster (extra `ray`)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pggan_kit import ConfigError, SettingError, Trial, check_at_least
from pggan_plugins.launchers.processes import (
    KILLED,
    POLL_SECONDS,
    TIME_LIMIT_REACHED,
    choose_start_code,
    count_retries_left,
    start_process,
    stop_processes,
)

PR_SET_PDEATHSIG = 1
"""Option of Linux' prctl: the signal that a process gets when its parent exits."""


class Ray:
    """A Ray task for each trial, on one machine or a cluster; where its process or node fails, it runs again elsewhere.

    A trial goes on from its last checkpoint, so `--out` must be in a folder that all nodes share, and pggan_kit must be
    installed on each. The cluster's CPUs and GPUs decide how many trials run at once.

    Args:
        address: The address of a running cluster, e.g. `auto` or `ray://head:10001`; None: Ray on this machine, for
            this launch.
        cores: The CPUs of each trial, at least 1: its OMP_NUM_THREADS too.
        gpus: The GPUs of each trial, at least 0; a fraction lets several share one.
        retries: The number of times that a trial which failed, or whose node failed, is run again, at least 0.

    Raises:
        ValueError: A value out of range.
        ConfigError: Ray is not installed.
    """

    def __init__(self, address: str | None = None, cores: int = 1, gpus: float = 0, retries: int = 3) -> None:
        check_at_least("cores", cores, 1)
        check_at_least("gpus", gpus, 0)
        check_at_least("retries", retries, 0)
        if gpus > 1 and gpus != int(gpus):
            raise SettingError("gpus", f"must be a fraction of one, or a whole number, and is {gpus}")
        self.address = address
        self.cores = cores
        self.gpus = gpus
        self.retries = retries
        _import_ray()

    def launch(self, trials: Sequence[Trial], ended: Callable[[Trial, int], None] | None = None) -> list[int]:
        """Run each trial to its end; see `pggan_kit.components.Launcher`.

        Raises:
            ConfigError: No cluster at `address`.
        """
        ray = _import_ray()

        # A connection that the caller has made is used, and stays.
        connects = not ray.is_initialized()
        if connects:
            self._connect(ray)
        try:
            return self._run_tasks(ray, trials, ended)
        finally:
            if connects:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if self.address is None:
            options["include_dashboard"] = False
        try:
            # Without an address Ray would look for a cluster that RAY_ADDRESS names, or that this machine belongs to.
            ray.init(address=self.address or "local", **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"launchers.Ray.address {self.address!r} cannot be reached: {error}") from error

    def _run_tasks(self, ray: Any, trials: Sequence[Trial], ended: Callable[[Trial, int], None] | None) -> list[int]:
        """Run a task for each trial, and return the exit codes."""
        remote = ray.remote(
            num_cpus=self.cores, num_gpus=self.gpus, max_retries=self.retries, retry_exceptions=[TrialFailed]
        )
        task = remote(run_trial)
        numbers = {task.remote(trial, self.cores): number for number, trial in enumerate(trials)}

        # Collect the tasks in the order in which they end.
        codes: dict[int, int] = {}
        waiting = list(numbers)
        try:
            while waiting:
                (ready, *_), waiting = ray.wait(waiting)
                number = numbers[ready]
                codes[number] = _get_exit_code(ray, ready)
                if ended is not None:
                    ended(trials[number], codes[number])
        except BaseException:
            # Cancelling raises KeyboardInterrupt in the task, which stops its process in order.
            for reference in waiting:
                ray.cancel(reference)
            # Ray refuses to wait for nothing.
            if waiting:
                ray.wait(waiting, num_returns=len(waiting))
            raise
        return [codes[number] for number in range(len(trials))]


class TrialFailed(Exception):
    """A trial's process exited early: Ray runs the task again.

    Args:
        code: The exit code of the process.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def run_trial(trial: Trial, cores: int) -> int:
    """Run a trial within a task, and return its exit code.

    Raises:
        TrialFailed: An exit after which the trial should be run again, as a failure.
    """
    # Ray counts every other way to run a task again.
    while (code := _run_process(trial, cores)) == TIME_LIMIT_REACHED:
        continue
    if count_retries_left(code, 1) is not None:
        raise TrialFailed(code)
    return code


def _run_process(trial: Trial, cores: int) -> int:
    """Run a trial's process until it exits, and return its exit code."""
    try:
        # Windows refuses any function here.
        before = _exit_with_task if sys.platform == "linux" else None
        process = start_process(trial, _build_environment(os.environ, cores), before=before)
    except OSError as error:
        return choose_start_code(error)

    # Poll: Ray's KeyboardInterrupt is no signal, and would not end a wait.
    try:
        while (code := process.poll()) is None:
            time.sleep(POLL_SECONDS)
    except BaseException:
        stop_processes([process])
        raise
    return code


def _build_environment(task: Mapping[str, str], cores: int) -> dict[str, str]:
    """Return the environment of a trial: that of its task, in which Ray has chosen the GPUs, and the cores."""
    return {**task, "OMP_NUM_THREADS": str(cores)}


def _exit_with_task() -> None:
    """Make this process exit when its task is killed, so that it does not go on writing to the run's folder; Linux."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _get_exit_code(ray: Any, reference: Any) -> int:
    """Return the exit code of a task that has ended."""
    try:
        code: int = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, TrialFailed):
            return error.cause.code
        raise
    except ray.exceptions.RayError:  # its node or worker failed more often than `retries` allows
        return KILLED
    return code


def _import_ray() -> Any:
    """Import Ray.

    Raises:
        ConfigError: Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError("launchers.Ray needs the package ray: pip install 'pggan_kit[ray]'") from None
    return ray
