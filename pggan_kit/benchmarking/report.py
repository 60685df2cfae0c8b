"""Collect what `bench` measures, what failed, and what there was no time for."""

from __future__ import annotations

import contextlib
import gc
import math
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from pggan_kit.errors import first_line
from pggan_kit.schedule import Stage
from pggan_kit.system.devices import free_cached_memory
from pggan_kit.training.out_of_memory import is_out_of_memory

STEADY = "steady"
FADING = "fading"
PHASES = (STEADY, FADING)

Progress = Callable[[str], None]
"""A function that takes a line on what is being measured."""


class TimeBudget:
    """The time in which everything is to be measured, from now on.

    Args:
        seconds: The time; None for no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = math.inf if seconds is None else seconds
        self._end = time.perf_counter() + self.seconds

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit."""
        return self.seconds < math.inf

    @property
    def left(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self._end - time.perf_counter())

    @property
    def is_up(self) -> bool:
        """Whether no time is left."""
        return self.left <= 0


@dataclass(frozen=True)
class Case:
    """A stage, steady or in the middle of its fade."""

    stage: Stage
    phase: str

    @property
    def fading(self) -> bool:
        """Whether the stage is in the middle of its fade."""
        return self.phase == FADING

    def describe(self) -> dict[str, Any]:
        """Return what tells the case in a row of the report."""
        stage = self.stage
        return {"stage": stage.index, "size": stage.size, "phase": self.phase, "batch": stage.batch_size}


@dataclass
class Report:
    """What was measured so far; see `bench`.

    Attributes:
        device: The device, whose cache is emptied after a failure.
        rows: A row for each stage, phase and contender.
        failures: What raised, with its reason.
        left_out: What there was no time for.
    """

    device: torch.device
    rows: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)

    @contextlib.contextmanager
    def note_failure(self, contender: str, case: Case, activity: str, progress: Progress) -> Iterator[None]:
        """Let the work of a contender fail: note that, and go on after it.

        Args:
            contender: The contender's name.
            case: What is being measured.
            activity: What it does, for the reader of the note.
            progress: A function that takes the note.
        """
        try:
            yield
        except Exception as error:
            row = {"contender": contender, **case.describe(), "activity": activity}
            row["out_of_memory"] = is_out_of_memory(error)
            row["reason"] = f"{type(error).__name__}: {first_line(error)}"
            if not row["out_of_memory"]:
                row["traceback"] = traceback.format_exc()
            self.failures.append(row)
            progress(describe_failure(row))
        else:
            return
        # Frames of the exception held its tensors until here.
        free_memory(self.device)

    def leave_out(self, contenders: Sequence[str], case: Case, what: str) -> None:
        """Note that there was no time to measure something of contenders."""
        for contender in contenders:
            self.left_out.append({"contender": contender, **case.describe(), "what": what})

    def find_row(self, contender: str, case: Case) -> dict[str, Any] | None:
        """Return the row of a contender; None where it has none."""
        for row in self.rows:
            if (row["contender"], row["stage"], row["phase"]) == (contender, case.stage.index, case.phase):
                return row
        return None

    def list_rows(self) -> list[dict[str, Any]]:
        """Return the rows by stage and phase, whatever the order in which they were measured."""
        return sorted(self.rows, key=lambda row: (row["stage"], PHASES.index(row["phase"])))


def free_memory(device: torch.device) -> None:
    """Free what is no longer used of a GPU's memory, cycles of references included: others need it."""
    if device.type == "cuda":
        gc.collect()
        free_cached_memory(device)


def describe_failure(row: dict[str, Any]) -> str:
    """Return a line on a contender that failed."""
    place = f"{row['contender']} at {row['size']} ({row['phase']})"
    if row["out_of_memory"]:
        return f"memory ends for {place} with a batch of {row['batch']}: {row['reason']}"
    return f"{place} failed ({row['activity']}): {row['reason']}"
