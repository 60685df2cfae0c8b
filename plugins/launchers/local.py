"""Trials as processes of this machine."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pggan_kit import Trial, check_at_least, count_cores
from pggan_plugins.launchers.prepared_processes import LOST, PreparationServer, find_preparation
from pggan_plugins.launchers.processes import (
    POLL_SECONDS,
    Process,
    choose_start_code,
    count_retries_left,
    start_process,
    stop_processes,
)


class Local:
    """A limited number of processes at once, each with its share of the cores and its GPU.

    With one core each, small networks train more images an hour in all than with several: two threads of one trial wait
    for each other.

    On Linux, trials with a preparation, such as those of an ablation, are forks of one process that has done it: what
    they import is imported once in each `launch`.

    Args:
        jobs: The largest number of trials at once, at least 1; with GPUs no more than these allow. None: as many as the
            cores allow, or, with GPUs, as these allow.
        cores: The cores of each trial, at least 1: its OMP_NUM_THREADS.
        trials_per_gpu: The number of trials that share a GPU, at least 1; without GPUs it has no effect. Trials are
            assigned to the GPUs in turn, by CUDA_VISIBLE_DEVICES. One small trial cannot keep a large GPU busy: with
            networks of the size of MNIST's most of it is idle; with NVIDIA's Multi-Process Service trials run on it
            together. The default is safe for any size of network and memory.
        retries: The number of times that a trial which failed is run again, at least 0.

    Raises:
        ValueError: A value out of range.
    """

    def __init__(self, jobs: int | None = None, cores: int = 1, trials_per_gpu: int = 1, retries: int = 2) -> None:
        check_at_least("jobs", jobs, 1, instead="None")
        check_at_least("cores", cores, 1)
        check_at_least("trials_per_gpu", trials_per_gpu, 1)
        check_at_least("retries", retries, 0)

        # As many trials as the GPUs allow, or else the cores; more of them could use up a GPU's memory.
        self.gpus = list_gpus()
        if self.gpus:
            slots = len(self.gpus) * trials_per_gpu
            self.jobs = slots if jobs is None else min(jobs, slots)
        elif jobs is not None:
            self.jobs = jobs
        else:
            self.jobs = max(1, count_cores() // cores)
        self.cores = cores
        self.retries = retries

    def launch(self, trials: Sequence[Trial], ended: Callable[[Trial, int], None] | None = None) -> list[int]:
        """Run each trial to its end; see `pggan_kit.components.Launcher`."""
        queue = _Queue(self, trials, ended)
        try:
            while queue.waiting or queue.running:
                queue.fill_slots()
                time.sleep(POLL_SECONDS)
                queue.collect_exits()
        except BaseException:
            stop_processes([job.process for job in queue.running.values()])
            raise
        finally:
            queue.close()
        return [queue.codes[number] for number in range(len(trials))]

    def environment(self, slot: int) -> dict[str, str]:
        """Return the environment of a process in one of the slots for jobs, counted from 0."""
        share = {"OMP_NUM_THREADS": str(self.cores)}
        if self.gpus:
            share["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        return {**os.environ, **share}


@dataclass
class _Job:
    """A running trial.

    Attributes:
        number: Its place among the trials.
        retries: The retries that are left.
        process: Its process.
    """

    number: int
    retries: int
    process: Process


class _Queue:
    """The trials of one `launch`.

    Attributes:
        codes: The last exit code of each trial that is done, by its number.
        waiting: The number and the retries left of each trial that is to be started.
        running: The running trials, by slot.
        server: The process whose forks the trials are; None if each is a new process.
    """

    def __init__(self, local: Local, trials: Sequence[Trial], ended: Callable[[Trial, int], None] | None) -> None:
        self.local = local
        self.trials = trials
        self.ended = ended
        self.codes: dict[int, int] = {}
        self.waiting = deque((number, local.retries) for number in range(len(trials)))
        self.running: dict[int, _Job] = {}
        self.server: PreparationServer | None = None
        preparation = find_preparation(trials)
        if preparation is not None:
            # Without a server, for example where processes are too many, each trial is a new process.
            with contextlib.suppress(OSError):
                self.server = PreparationServer(preparation, local.environment(0))

    def fill_slots(self) -> None:
        """Start a waiting trial in each free slot."""
        for slot in range(min(self.local.jobs, len(self.trials))):
            if self.waiting and slot not in self.running:
                number, retries = self.waiting.popleft()
                try:
                    process = self._start(self.trials[number], self.local.environment(slot))
                except OSError as error:
                    self._end_or_queue_again(number, retries, choose_start_code(error))
                else:
                    self.running[slot] = _Job(number, retries, process)

    def collect_exits(self) -> None:
        """Free the slots of trials that have exited, and queue again those that failed and have retries left."""
        for slot, job in list(self.running.items()):
            code = job.process.poll()
            if code is None:
                continue
            del self.running[slot]
            if code == LOST:
                # Not the trial's failure. A new process waits for the old one, if that still runs.
                self.waiting.appendleft((job.number, job.retries))
                continue
            self._end_or_queue_again(job.number, job.retries, code)

    def close(self) -> None:
        """End the server, if there is one."""
        if self.server is not None:
            self.server.close()

    def _start(self, trial: Trial, environment: dict[str, str]) -> Process:
        """Start a trial: as a fork of the server, or as a new process where there is no server (any more).

        Raises:
            OSError: See `start_process`.
        """
        process = None if self.server is None else self.server.start(trial, environment)
        return process or start_process(trial, environment)

    def _end_or_queue_again(self, number: int, retries: int, code: int) -> None:
        """Queue a trial again that failed and had retries left; else record its exit code, and report it."""
        left = count_retries_left(code, retries)
        if left is not None:
            self.waiting.appendleft((number, left))
            return
        self.codes[number] = code
        if self.ended is not None:
            self.ended(self.trials[number], code)


def list_gpus() -> list[str]:
    """Return the value of CUDA_VISIBLE_DEVICES that selects each GPU that this process may use."""
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        return visible.split(",")[:count]
    return [str(index) for index in range(count)]
