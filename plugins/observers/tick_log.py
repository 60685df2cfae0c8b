"""What a run has measured and a log elsewhere lacks: numbers of ticks, and rows about switches."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from typing import Any

from pggan_kit import JsonLines, Run

PREFIX = "Transition/"
"""Prefix of the tags in `transitions.jsonl`."""

LONGEST_VALUE = 200
"""Maximum characters of a setting among the hyperparameters."""

Point = tuple[int, dict[str, float]]
"""The clock in images, and numbers by tag."""


class TickLog:
    """The numbers that were not logged yet: those of ticks, kept until they are, and those of `transitions.jsonl`.

    A row of transitions is logged one image later than it was measured, at the next tick: it is written before or after
    the hooks of its own tick, and after that tick's checkpoint, from which a resumed run drops it.

    Attributes:
        last_tick: Clock up to which everything is logged, without the rows of transitions that are written there.
        ticks: Numbers of the ticks that were not logged yet.
    """

    def __init__(self) -> None:
        self.last_tick = 0
        self.ticks: list[Point] = []
        self._transitions: JsonLines | None = None

    def begin(self, run: Run) -> None:
        """Begin with a run, as if all up to its last tick were logged; `load` then says what was not."""
        self._transitions = JsonLines(run.directory / "transitions.jsonl")
        self.ticks = []
        self.last_tick = run.state.last_tick if run.resumed else 0

    def add(self, images: int, stats: Mapping[str, float]) -> None:
        """Add the numbers of a tick."""
        self.ticks.append((images, {tag: float(value) for tag, value in stats.items()}))

    def list_transitions(self, until: float) -> list[Point]:
        """Return the rows of transitions from the last tick on, up to a clock."""
        assert self._transitions is not None
        points = []
        for row in self._transitions.read():
            if self.last_tick <= row["images"] <= until:
                # A value that was not finite was written as null.
                numbers = {tag: value for tag, value in row.items() if tag.startswith(PREFIX) and value is not None}
                points.append((row["images"] + 1, numbers))
        return points

    def list_points(self, until: float = math.inf) -> list[Point]:
        """Return all that was not logged yet, in the order of the clock; rows of transitions up to a clock."""
        return sorted([*self.ticks, *self.list_transitions(until)], key=lambda point: point[0])

    def clear(self, images: int) -> None:
        """Note that all is logged up to a tick."""
        self.ticks = []
        self.last_tick = images

    def save(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"last_tick": self.last_tick, "unlogged": list(self.ticks)}

    def load(self, run: Run, saved: Mapping[str, Any]) -> None:
        """Restore what `save` returned, which is about the log of this run: a branch has its own."""
        if not run.is_new_branch:
            self.last_tick = saved["last_tick"]
            self.ticks = list(saved["unlogged"])


def parse_hyperparameters(config: str) -> dict[str, Any]:
    """Return the bindings of a self-contained gin text: numbers, truth values and strings as such, the rest as text."""
    parsed: dict[str, Any] = {}
    for name, text in re.findall(r"^([\w./]+) = (.+)$", config, re.MULTILINE):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = None
        if isinstance(value, (bool, int, float, str)):
            parsed[name] = value
        else:
            parsed[name] = text[:LONGEST_VALUE]
    return parsed
