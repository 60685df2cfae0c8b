"""The files of a run, read for a report: numbers, stages, configuration. Images are in `run_pictures.py`."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pggan_kit.components import find_quantity
from pggan_kit.config import gin_files
from pggan_kit.errors import RunError, UserError, quote_path
from pggan_kit.pictures.channels import PictureSettings
from pggan_kit.runs.branches import find_trunk
from pggan_kit.runs.directory import RunDirectory, read_begin
from pggan_kit.system.files import read_text
from pggan_kit.system.json_lines import JsonLines

Curve = list[tuple[int, float]]
"""Pairs (clock, value), both finite, by rising clock."""

ABSENT: Any = object()
"""Value of a column in a row that lacks it; None would be a value."""


class NoTickError(RunError):
    """A run has no tick yet, so that there is nothing to report."""


class Ticks(Sequence[Mapping[str, Any]]):
    """Rows of ticks, which are kept by columns: a dictionary for each takes ten times the memory.

    Args:
        rows: The rows, which may have different names.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._count = len(rows)
        names = dict.fromkeys(name for row in rows for name in row)
        self._columns = {name: _pack_column([row.get(name, ABSENT) for row in rows]) for name in names}

    @property
    def names(self) -> list[str]:
        """The names that any row has, in the order of their first appearance."""
        return list(self._columns)

    def column(self, name: str) -> Sequence[Any]:
        """Return the values of all rows by one name, `ABSENT` where a row lacks it."""
        return self._columns.get(name) or [ABSENT] * self._count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(self._count))]
        values = {name: column[place] for name, column in self._columns.items()}
        return {name: value for name, value in values.items() if value is not ABSENT}


def _pack_column(values: list[Any]) -> Sequence[Any]:
    """Return numbers of one type as an array, anything else as it is."""
    kinds = {type(value) for value in values}
    if kinds == {float}:
        return array("d", values)
    if kinds == {int} and max(map(abs, values)) < 2**63:
        return array("q", values)
    return values


@dataclass(frozen=True)
class StageRecord:
    """A stage as it was trained.

    Attributes:
        index: Place in the schedule, from 0.
        height: Height of its images.
        start, end: Clock at its beginning and at its last tick.
        fade_end: Clock at the last tick at which an old path was blended in; None where there was none.
        images_per_second: Pace over the whole stage, the work of ticks included.
    """

    index: int
    height: int
    start: int
    end: int
    fade_end: int | None
    images_per_second: float

    @property
    def size(self) -> str:
        """The stage's size for people."""
        return f"{self.height} px"


def list_bindings(text: str) -> dict[str, str]:
    """Return the bindings of gin text by their targets; a value that spans lines becomes one line."""
    bindings: dict[str, str] = {}
    name = None
    for line in text.splitlines():
        left, equals, right = line.partition(" = ")
        if equals and line[:1].isalpha():
            name = left
            bindings[name] = right.strip(" \\")
        elif name is not None and line.startswith(" "):
            bindings[name] = f"{bindings[name]} {line.strip()}".strip()
        else:
            name = None
    return bindings


@dataclass(frozen=True)
class RunRecord:
    """A run.

    Attributes:
        name: Name for people, unique among the runs of a report.
        folder: The run's directory.
        trunk: The run that it began from, where that still exists.
        about: Content of `run.json`.
        given, operative: Configuration as gin text, as it was given and as it was in effect.
        rows: A row for each tick, those of the trunk before its own.
        transitions: Rows of `transitions.jsonl`, likewise.
        stages: The stages, in order.
        coherence: Rows of `coherence.jsonl`, likewise.
    """

    name: str
    folder: Path
    trunk: RunRecord | None
    about: dict[str, Any]
    given: str
    operative: str
    rows: Ticks
    transitions: list[dict[str, Any]]
    stages: list[StageRecord]
    coherence: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def tags(self) -> list[str]:
        """All tags that have numbers, in the order of their first appearance."""
        return [tag for tag in self.rows.names if "/" in tag and any(map(is_finite, self.rows.column(tag)))]

    @cached_property
    def settings(self) -> Mapping[str, str]:
        """Bindings of the operative configuration as text."""
        return list_bindings(self.operative)

    def curve(self, tag: str) -> Curve:
        """Return a tag's finite values over the clock."""
        pairs = zip(self.rows.column("images"), self.rows.column(tag), strict=True)
        return [(clock, float(value)) for clock, value in pairs if is_finite(value)]

    def final(self, tag: str) -> float | None:
        """Return a tag's last value, None where there is none."""
        curve = self.curve(tag)
        return curve[-1][1] if curve else None

    def find_direction(self, tag: str) -> str | None:
        """Return which values of a metric are better, `lower` or `higher` ones; None where no run recorded it."""
        name = tag.partition("/")[2]
        for run in reversed(list(self.lineage())):
            direction: str | None = find_quantity(run.about.get("directions", {}), name)
            if direction is not None:
                return direction
        return None

    @cached_property
    def bound_values(self) -> Mapping[str, Any]:
        """Values of parameters such as `train.seed`; none where the configuration cannot be read."""
        try:
            bindings = gin_files.parse_text(self.operative, "operative.gin").bindings
        except UserError:
            return {}
        # The last binding counts.
        return {f"{each.selector}.{each.parameter}": each.value for each in bindings if not each.is_macro}

    def setting(self, name: str) -> Any:
        """Return the value of a parameter such as `train.seed`; None where the configuration cannot be read."""
        return self.bound_values.get(name)

    def count_panels(self) -> int:
        """Return the number of channels that its pictures show side by side; 1 where they are gray or colour."""
        channels = self.about.get("data", {}).get("channels")
        if not isinstance(channels, int):
            return 1
        return PictureSettings(self.setting("pictures.channels")).count_panels(channels)

    def lineage(self) -> Iterator[RunRecord]:
        """Yield the trunk's trunk, ..., the trunk, the run."""
        if self.trunk is not None:
            yield from self.trunk.lineage()
        yield self


def is_finite(value: object) -> bool:
    """Return whether a value is a number that can be drawn."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_run(folder: Path, name: str | None = None) -> RunRecord:
    """Read a run.

    Args:
        folder: The run's directory.
        name: Name for people, by default that of the folder.

    Raises:
        NoTickError: The run has no tick yet.
        RunError: The folder holds no run, or its files are damaged.
    """
    # A trunk may be without ticks of its own, but not the whole lineage.
    record = _read(folder, name, set())
    if not record.rows:
        raise NoTickError(
            f"{folder} has no tick yet, so there is nothing to report: continue it with "
            f"`pggan-kit resume {quote_path(folder)}`"
        )
    return record


def _read(folder: Path, name: str | None, seen: set[Path]) -> RunRecord:
    files = RunDirectory.open(folder)
    about = files.about()
    rows = files.stats()
    transitions = JsonLines(folder / "transitions.jsonl").read()
    coherence = JsonLines(folder / "coherence.jsonl").read()

    # A branch shows what its trunk did up to the branch. A damaged run.json may name a run that began from this one.
    # A run on a stem has trained nothing before its stem's end.
    start = 0
    if "from" not in about:
        start = read_begin(about)
    trunk = None
    origin = find_trunk(files)
    seen = seen | {folder.resolve()}
    if origin is not None and origin[0].path.resolve() not in seen:
        trunk_files, clock = origin
        trunk = _read(trunk_files.path, None, seen)
        rows = [dict(row) for row in trunk.rows if row["images"] <= clock] + rows
        transitions = [row for row in trunk.transitions if row["images"] <= clock] + transitions
        coherence = [row for row in trunk.coherence if row["images"] <= clock] + coherence

    # A report shows the settings that were in effect, not only those that were written.
    operative = folder / "operative.gin"
    try:
        operative_text = read_text(operative)
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"cannot read {operative}: {error}") from error

    return RunRecord(
        name=name or folder.resolve().name,
        folder=folder,
        trunk=trunk,
        about=about,
        given=files.read_config(),
        operative=operative_text,
        rows=Ticks(rows),
        transitions=transitions,
        stages=list_stages(rows, folder, start),
        coherence=coherence,
    )


def list_stages(rows: Sequence[Mapping[str, Any]], folder: Path, start: int = 0) -> list[StageRecord]:
    """Return the stages that the rows of ticks belong to.

    Args:
        rows: the rows of ticks.
        folder: the run's folder, for errors.
        start: the clock at which the first of them begins.

    Raises:
        RunError: A tick does not name its stage.
    """
    by_stage: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        if not all(is_finite(row.get(f"Progress/{name}")) for name in ("stage", "size", "alpha")):
            raise RunError(f"{folder / 'stats.jsonl'} is damaged: the row of images {row['images']} names no stage")
        by_stage.setdefault(int(row["Progress/stage"]), []).append(row)

    # A stage begins where the one before it ended.
    stages: list[StageRecord] = []
    for index, ticks in sorted(by_stage.items()):
        stage = _summarize_stage(index, start, ticks)
        stages.append(stage)
        start = stage.end
    return stages


def _summarize_stage(index: int, start: int, ticks: Sequence[Mapping[str, Any]]) -> StageRecord:
    height = int(ticks[0]["Progress/size"])
    end = ticks[-1]["images"]
    faded = [row["images"] for row in ticks if row["Progress/alpha"] < 1]
    seconds = sum(row["Timing/seconds"] for row in ticks if is_finite(row.get("Timing/seconds")))
    images_per_second = (end - start) / seconds if seconds > 0 else 0.0
    return StageRecord(index, height, start, end, max(faded, default=None), images_per_second)


def name_runs(folders: Sequence[Path]) -> list[str]:
    """Return a short, unique name for each folder: its own, with as many of its parents as that takes."""
    paths = [folder.resolve().parts for folder in folders]
    names = [path[-1] for path in paths]
    longest = max(map(len, paths))
    depth = 1
    while len(set(names)) < len(names) and depth < longest:
        depth += 1
        names = ["/".join(path[-depth:]) for path in paths]
    return names
