"""How far the trials of an ablation are, read from its folder: whatever launcher runs them, and wherever.

What they measure stays hidden, since an ablation is looked at when its plan says so.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pggan_kit.ablation import trial as trials
from pggan_kit.ablation.plan import Plan
from pggan_kit.ablation.settings import TRUNK
from pggan_kit.benchmarking.plan_table import format_duration
from pggan_kit.errors import RunError
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.system.activities import Details
from pggan_kit.system.locks import is_locked

HEAD = ("trial", "stage", "images", "images/s", "time left")
"""Columns of the table of the trials that run."""

NAMES_SHOWN = 6
"""Number of waiting trials that are named."""

Key = tuple[str, int]
"""Name and seed of a trial."""


@dataclass(frozen=True)
class _Stage:
    """A stage of a trial: its size and height, and the image count at which it ends by its budget."""

    size: str
    height: int
    end: int


@dataclass
class _Tick:
    """What the last row of a trial says.

    Attributes:
        images: The image clock.
        stage: Number of the stage, from 0.
        rate: Images per second of the last tick.
    """

    images: int
    stage: int
    rate: float


class _Watched:
    """A trial's folder, of which only what has changed is read again.

    Attributes:
        stages: The stages that it trains; empty as long as they are not known.
        last: Its last row; None before the first.
        spent: Images and seconds of all its ticks, by stage.
    """

    def __init__(self, folder: Path, last_stage: int | None) -> None:
        self.folder = folder
        self.last_stage = last_stage
        self.stages: list[_Stage] = []
        self.last: _Tick | None = None
        self.spent: dict[int, tuple[float, float]] = {}
        self._seen: tuple[int, int] | None = None

    def read(self) -> None:
        """Read what is new. A file that cannot be read now, as where a disk is away, is read the next time."""
        files = RunDirectory(self.folder)
        try:
            if not self.stages and (self.folder / "run.json").exists():
                self.stages = _list_stages(files.about().get("schedule", {}), self.last_stage)
            status = (self.folder / "stats.jsonl").stat()
            seen = (status.st_mtime_ns, status.st_size)
            if seen != self._seen:
                self._take_rows(files.stats())
                self._seen = seen
        except (RunError, OSError):
            return

    def _take_rows(self, rows: Sequence[dict[str, Any]]) -> None:
        self.spent = {}
        for row in rows:
            tick = _read_tick(row)
            seconds = row.get("Timing/seconds")
            if tick is None or not isinstance(seconds, int | float):
                continue
            images_before, seconds_before = self.spent.get(tick.stage, (0.0, 0.0))
            self.spent[tick.stage] = (images_before + tick.rate * seconds, seconds_before + seconds)
            self.last = tick

    @property
    def images(self) -> int:
        """The image clock."""
        return 0 if self.last is None else self.last.images

    @property
    def total(self) -> int | None:
        """The image count at which it ends; None as long as it is not known."""
        return self.stages[-1].end if self.stages else None


def _list_stages(schedule: Any, last_stage: int | None) -> list[_Stage]:
    """Return the stages of a schedule as `run.json` holds it, up to the last one of a trunk; none of a damaged one."""
    try:
        total = int(schedule["total"])
        stages = []
        end = 0
        for stage in schedule["stages"]:
            end += int(stage["budget"])
            stages.append(_Stage(str(stage["size"]), int(stage["height"]), min(end, total)))
        # The last stage takes all that remains.
        stages[-1] = replace(stages[-1], end=total)
    except (KeyError, TypeError, ValueError, IndexError):
        return []
    return stages if last_stage is None else stages[: last_stage + 1]


def _read_tick(row: dict[str, Any]) -> _Tick | None:
    """Return what a row of `stats.jsonl` says of the progress; None of a row that says nothing of it."""
    try:
        return _Tick(row["images"], int(row["Progress/stage"]), float(row["Timing/images_per_second"]))
    except (KeyError, TypeError, ValueError):
        return None


class TrialProgress:
    """How far trials are.

    Args:
        plan: The plan.
        out: The ablation's folder.
        keys: The trials: trunks alone, or runs alone.

    Attributes:
        noun: What they are called, `trunks` or `trials`.
    """

    def __init__(self, plan: Plan, out: Path, keys: Sequence[Key]) -> None:
        self.plan = plan
        self.out = out
        self.keys = list(keys)
        self.noun = "trunks" if all(name == TRUNK for name, _ in keys) else "trials"
        self._watched: dict[Key, _Watched] = {}
        for name, seed in [*plan.list_trunks(), *keys]:
            last_stage = plan.branch if name == TRUNK else None
            self._watched[name, seed] = _Watched(trials.locate_trial(out, name, seed), last_stage)
        self._ended: dict[Key, bool] = {}
        self._evaluation_seconds: dict[Key, float] = {}

    def describe(self) -> Details:
        """Return a row for each trial that runs, and lines on those that wait, those that ended, and the time left."""
        running: list[Key] = []
        waiting: list[Key] = []
        for key in self.keys:
            if self._has_ended(key):
                continue
            (running if is_locked(trials.locate_lock(self.out, *key)) else waiting).append(key)
        for key in self._watched:
            # Of those that have ended, everything is known once it has been read.
            if key not in self._ended or not self._watched[key].spent:
                self._watched[key].read()

        paces = self._measure_paces()
        rows = [self._make_row(key, paces) for key in running]
        lines = []
        if waiting:
            names = [f"{name} {seed}" for name, seed in waiting[:NAMES_SHOWN]]
            if len(waiting) > NAMES_SHOWN:
                names.append("...")
            lines.append(f"{len(waiting)} wait: {', '.join(names)}")
        failed = [f"{name} {seed}" for (name, seed), has_failed in self._ended.items() if has_failed]
        if self._ended:
            lines.append(f"{len(self._ended)} ended{', failed: ' + ', '.join(failed) if failed else ''}")
        seconds = self._estimate_all(running, waiting, paces)
        if seconds is not None:
            lines.append(f"about {format_duration(seconds)} left for these {self.noun}")
        return Details(HEAD, rows, lines)

    def _has_ended(self, key: Key) -> bool:
        """Return whether a trial has a result, and note whether it failed and how long its evaluation took."""
        if key not in self._ended:
            folder = trials.locate_trial(self.out, *key)
            result = trials.read_result(folder)
            if result is None:
                return False
            self._ended[key] = bool(result["failed"])
            with contextlib.suppress(OSError):
                trained = (folder / "stats.jsonl").stat().st_mtime
                if result["rows"]:
                    self._evaluation_seconds[key] = (folder / trials.RESULT).stat().st_mtime - trained
        return True

    def _measure_paces(self) -> dict[int, float]:
        """Return the seconds per image of each stage that some trial has trained, on average over all trials."""
        images: dict[int, float] = {}
        seconds: dict[int, float] = {}
        for watched in self._watched.values():
            for stage, spent in watched.spent.items():
                images[stage] = images.get(stage, 0.0) + spent[0]
                seconds[stage] = seconds.get(stage, 0.0) + spent[1]
        return {stage: seconds[stage] / images[stage] for stage in images if images[stage] > 0}

    def _make_row(self, key: Key, paces: dict[int, float]) -> tuple[str, ...]:
        name = f"{key[0]} {key[1]}"
        watched = self._watched[key]
        if watched.last is None:
            return (name, "begins", "", "", "")
        images = f"{watched.images:,}"
        stage = f"{watched.last.stage + 1}"
        if watched.total is not None:
            stage += f"/{len(watched.stages)} {watched.stages[watched.last.stage].size}"
            images += f" of {watched.total:,}"
            if watched.images >= watched.total:
                return (name, "evaluation", images, "", "")

        # The rest of its time is estimated only while it trains.
        seconds = self._estimate_rest(key, paces)
        left = "" if seconds is None else format_duration(seconds)
        rate = watched.last.rate
        return (name, stage, images, f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}", left)

    def _estimate_rest(self, key: Key, paces: dict[int, float]) -> float | None:
        """Return the seconds that a trial needs to its end; None as long as nothing is known to tell by."""
        stages = self._find_stages(key)
        if not stages or not paces:
            return None
        images = self._watched[key].images
        if images == 0 and key[0] in self.plan.shared:
            images = stages[self.plan.branch or 0].end
        seconds = 0.0
        start = 0
        for number, stage in enumerate(stages):
            seconds += max(0, stage.end - max(images, start)) * _guess_pace(number, stages, paces)
            start = stage.end

        # A trunk is not evaluated.
        if key[0] != TRUNK and self._evaluation_seconds:
            seconds += statistics.median(self._evaluation_seconds.values())
        return seconds

    def _find_stages(self, key: Key) -> list[_Stage]:
        """Return the stages of a trial that has begun; else those of its variant's others, or of any variant."""
        others = [other for other in self._watched if (other[0] == TRUNK) == (key[0] == TRUNK)]
        others.sort(key=lambda other: (other != key, other[0] != key[0]))
        for other in others:
            if self._watched[other].stages:
                return self._watched[other].stages
        return []

    def _estimate_all(self, running: Sequence[Key], waiting: Sequence[Key], paces: dict[int, float]) -> float | None:
        """Return the seconds until all trials have ended, if as many run at once as now."""
        seconds = [self._estimate_rest(key, paces) for key in [*running, *waiting]]
        known = [each for each in seconds if each is not None]
        if not known or len(known) < len(seconds) or not running:
            return None
        return max(sum(known) / len(running), *known[: len(running)])


def _guess_pace(stage: int, stages: Sequence[_Stage], paces: dict[int, float]) -> float:
    """Return the seconds per image of a stage: measured, or in proportion to the height from the nearest one that was.

    That lies between equal costs and costs in proportion to the pixels, since larger stages have fewer channels.
    """
    if stage in paces:
        return paces[stage]
    known = [number for number in paces if number < len(stages)]
    if not known:
        return 0.0
    nearest = min(known, key=lambda number: abs(number - stage))
    return paces[nearest] * stages[stage].height / stages[nearest].height
