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
from pggan_plugins.launchers.local import LOOK_EVERY, NOT_THERE, WRONG_INPUT, started, stop

DIE_WITH_PARENT = 1
"""Linux' PR_SET_PDEATHSIG."""


class Ray:
    """Each trial is a Ray task, on one machine or a cluster; where its process or node dies, it runs again elsewhere.

    A trial goes on from its last checkpoint, so `--out` must be in a folder that all nodes share, and pggan_kit must be
    installed on each. How many trials run at once is what the cluster's CPUs and GPUs allow.

    Args:
        address: of a running cluster, e.g. `auto` or `ray://head:10001`; None: Ray on this machine, for this launch.
        cores: CPUs of each trial, at least 1: its OMP_NUM_THREADS too.
        gpus: of each trial, at least 0; a fraction lets several share one.
        retries: how often a trial that died, or whose node died, is run again, at least 0.

    Raises:
        ValueError: a value out of range.
        ConfigError: Ray is not installed.
    """

    def __init__(self, address: str | None = None, cores: int = 1, gpus: float = 0, retries: int = 3) -> None:
        for name, value, least in (("cores", cores, 1), ("gpus", gpus, 0), ("retries", retries, 0)):
            check_at_least(name, value, least)
        if gpus > 1 and gpus != int(gpus):
            raise SettingError("gpus", f"must be a fraction of one, or a whole number, and is {gpus}")
        self.address = address
        self.cores = cores
        self.gpus = gpus
        self.retries = retries
        _ray()

    def launch(self, trials: Sequence[Trial], ended: Callable[[Trial, int], None] | None = None) -> list[int]:
        """See `pggan_kit.components.Launcher`.

        Raises:
            ConfigError: there is no cluster at `address`.
        """
        ray = _ray()
        mine = not ray.is_initialized()
        if mine:
            self._connect(ray)
        try:
            return self._run(ray, trials, ended)
        finally:
            if mine:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        quiet = {"include_dashboard": False} if self.address is None else {}
        try:
            # Ray would otherwise look for a cluster that RAY_ADDRESS names, or that this machine belongs to.
            ray.init(address=self.address or "local", log_to_driver=False, logging_level="error", **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"launchers.Ray.address {self.address!r} cannot be reached: {error}") from error

    def _run(self, ray: Any, trials: Sequence[Trial], ended: Callable[[Trial, int], None] | None) -> list[int]:
        task = ray.remote(num_cpus=self.cores, num_gpus=self.gpus, max_retries=self.retries, retry_exceptions=[Died])(
            run
        )
        numbers = {task.remote(trial, self.cores): number for number, trial in enumerate(trials)}
        codes: dict[int, int] = {}
        waiting = list(numbers)
        try:
            while waiting:
                (ready, *_), waiting = ray.wait(waiting)
                number = numbers[ready]
                codes[number] = _code(ray, ready)
                if ended is not None:
                    ended(trials[number], codes[number])
        except BaseException:
            for reference in waiting:
                ray.cancel(reference)  # a KeyboardInterrupt in the task, which stops its process in order
            ray.wait(waiting, num_returns=len(waiting))
            raise
        return [codes[number] for number in range(len(trials))]


class Died(Exception):
    """A trial's process ended early, with this exit code: Ray runs it again."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def run(trial: Trial, cores: int) -> int:
    """A task: the trial's process, from its start to its exit code.

    Raises:
        Died: it is to be run again.
    """
    try:
        process = started(trial, _environment(os.environ, cores), before=_die_with_task)
    except OSError:
        return NOT_THERE
    try:
        while (code := process.poll()) is None:
            time.sleep(LOOK_EVERY)  # Ray's KeyboardInterrupt is no signal: it would not end a wait
    except BaseException:
        stop([process])
        raise
    if code not in (0, WRONG_INPUT):
        raise Died(code)
    return code


def _environment(task: Mapping[str, str], cores: int) -> dict[str, str]:
    """Ray has chosen the task's GPUs by CUDA_VISIBLE_DEVICES already."""
    return {**task, "OMP_NUM_THREADS": str(cores)}


def _die_with_task() -> None:
    """A task that is killed must not leave a process behind that goes on writing to the run's folder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)


def _code(ray: Any, reference: Any) -> int:
    try:
        code: int = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Died):
            return error.cause.code
        raise
    except ray.exceptions.RayError:  # its node, or Ray's own worker, died once more than it may
        return -signal.SIGKILL
    return code


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError("launchers.Ray needs the package ray: pip install 'pggan_kit[ray]'") from None
    return ray
