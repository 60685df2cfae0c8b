"""Trials as processes of this machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from pggan_kit import Trial, check_at_least

NOT_THERE = 127
"""The exit code of a program that is not there, as a shell has it."""

WRONG_INPUT = 2
LOOK_EVERY = 0.05
"""Seconds between looks at what has ended."""


class Local:
    """A bounded number of processes at once, each with its share of the cores and its GPU.

    On one core each, trials of small networks get through more in an hour than on several: two threads of one trial
    wait for each other.

    Args:
        jobs: how many trials at once, at least 1. None: as many as the cores allow, or, with GPUs, as these do.
        cores: of each trial, at least 1: its OMP_NUM_THREADS.
        trials_per_gpu: how many share a GPU, at least 1. Trials are dealt to the GPUs in turn, by CUDA_VISIBLE_DEVICES.
        retries: how often a trial that died is run again, at least 0.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(self, jobs: int | None = None, cores: int = 1, trials_per_gpu: int = 1, retries: int = 2) -> None:
        check_at_least("jobs", jobs, 1, instead="None")
        for name, value, least in (("cores", cores, 1), ("trials_per_gpu", trials_per_gpu, 1), ("retries", retries, 0)):
            check_at_least(name, value, least)
        self.gpus = visible_gpus()
        room = len(self.gpus) * trials_per_gpu if self.gpus else max(1, available_cores() // cores)
        self.jobs = jobs if jobs is not None else room
        self.cores = cores
        self.retries = retries

    def launch(self, trials: Sequence[Trial], ended: Callable[[Trial, int], None] | None = None) -> list[int]:
        """See `pggan_kit.components.Launcher`."""
        work = _Work(self, trials, ended)
        try:
            while work.waiting or work.running:
                work.start_some()
                time.sleep(LOOK_EVERY)
                work.collect()
        except BaseException:
            stop([running.process for running in work.running.values()])
            raise
        return [work.codes[number] for number in range(len(trials))]

    def environment(self, slot: int) -> dict[str, str]:
        """Of a process in one of the places for jobs, counted from 0."""
        share = {"OMP_NUM_THREADS": str(self.cores)}
        if self.gpus:
            share["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        return {**os.environ, **share}


@dataclass
class _Running:
    number: int
    retries: int  # that are left
    process: subprocess.Popen[bytes]


class _Work:
    """The state of one `launch`."""

    def __init__(self, local: Local, trials: Sequence[Trial], ended: Callable[[Trial, int], None] | None) -> None:
        self.local = local
        self.trials = trials
        self.ended = ended
        self.codes: dict[int, int] = {}
        self.waiting = deque((number, local.retries) for number in range(len(trials)))
        self.running: dict[int, _Running] = {}  # by slot

    def start_some(self) -> None:
        for slot in range(self.local.jobs):
            if self.waiting and slot not in self.running:
                number, retries = self.waiting.popleft()
                try:
                    process = started(self.trials[number], self.local.environment(slot))
                except OSError:
                    self._settle(number, NOT_THERE)
                else:
                    self.running[slot] = _Running(number, retries, process)

    def collect(self) -> None:
        for slot, job in list(self.running.items()):
            code = job.process.poll()
            if code is not None:
                del self.running[slot]
                if code not in (0, WRONG_INPUT) and job.retries:
                    self.waiting.appendleft((job.number, job.retries - 1))
                else:
                    self._settle(job.number, code)

    def _settle(self, number: int, code: int) -> None:
        self.codes[number] = code
        if self.ended is not None:
            self.ended(self.trials[number], code)


def started(
    trial: Trial, environment: Mapping[str, str], before: Callable[[], None] | None = None
) -> subprocess.Popen[bytes]:
    """A trial's process.

    Args:
        trial: what to run.
        environment: its variables.
        before: called in the new process before the program takes over.

    Raises:
        OSError: the program is not there, which its log then says too; or the log cannot be written.
    """
    with contextlib.ExitStack() as files:
        output = files.enter_context(trial.log.open("ab")) if trial.log is not None else None
        try:
            # A session of its own: a terminal's Ctrl-C goes to this process alone, and from here to each trial, once.
            return subprocess.Popen(
                list(trial.command),
                stdin=subprocess.DEVNULL,
                stdout=output or subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
                cwd=trial.folder,
                env=environment,
                start_new_session=True,
                preexec_fn=before,
            )
        except OSError as error:
            if output is not None:
                output.write(f"cannot start {trial.command[0]}: {error.strerror}\n".encode())
            raise


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Send SIGTERM and wait; each further KeyboardInterrupt sends it again, at which a trial no longer saves."""
    while any(process.poll() is None for process in processes):
        for process in processes:
            process.terminate()
        with contextlib.suppress(KeyboardInterrupt):
            for process in processes:
                process.wait()


def available_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may say to choose each GPU that this process sees."""
    count = torch.cuda.device_count()
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    return told.split(",")[:count] if told else [str(index) for index in range(count)]
