"""What a run left on the disk, read for a report: numbers, stages, configuration. Pictures are in `pictures.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pggan_kit.config import gin_files as configs
from pggan_kit.errors import RunError, UserError
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.system.json_lines import JsonLines

Curve = list[tuple[int, float]]
"""(clock, value), both finite, by rising clock."""


@dataclass(frozen=True)
class StageRecord:
    """A stage as it was trained.

    Attributes:
        index: from 0.
        height: of its images.
        start, end: the clock at its begin and at its last tick.
        fade_end: the clock at the last tick at which an old path was blended in; None where there was none.
        images_per_second: over the whole stage, ticks' own work included.
    """

    index: int
    height: int
    start: int
    end: int
    fade_end: int | None
    images_per_second: float

    @property
    def size(self) -> str:
        """For people."""
        return f"{self.height} px"


@dataclass(frozen=True)
class RunRecord:
    """A run.

    Attributes:
        name: for people, and unique among the runs of a report.
        folder: the run's directory.
        trunk: the run that it began from, where that is still there.
        about: of `run.json`.
        given, operative: the configuration as gin text.
        rows: a tick each, those of the trunk before its own.
        transitions: rows of `transitions.jsonl`, likewise.
        stages: in order.
    """

    name: str
    folder: Path
    trunk: RunRecord | None
    about: dict[str, Any]
    given: str
    operative: str
    rows: list[dict[str, Any]]
    transitions: list[dict[str, Any]]
    stages: list[StageRecord]

    @property
    def tags(self) -> list[str]:
        """All that has numbers, in the order of its first appearance."""
        found = (tag for row in self.rows for tag, value in row.items() if "/" in tag and finite(value))
        return list(dict.fromkeys(found))

    def curve(self, tag: str) -> Curve:
        """A tag's finite values over the clock."""
        return [(row["images"], float(row[tag])) for row in self.rows if finite(row.get(tag))]

    def final(self, tag: str) -> float | None:
        """The last value, None where there is none."""
        curve = self.curve(tag)
        return curve[-1][1] if curve else None

    def setting(self, name: str) -> Any:
        """What a parameter was bound to, as `train.seed`; None where the configuration cannot be read."""
        try:
            bindings = configs.parse_text(self.operative, "operative.gin").bindings
        except UserError:
            return None
        found = [b.value for b in bindings if not b.is_macro and f"{b.selector}.{b.parameter}" == name]
        return found[-1] if found else None

    def lineage(self) -> Iterator[RunRecord]:
        """The trunk's trunk, ..., the trunk, the run."""
        if self.trunk is not None:
            yield from self.trunk.lineage()
        yield self


def finite(value: object) -> bool:
    """Whether it is a number that can be drawn."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_run(folder: Path, name: str | None = None) -> RunRecord:
    """Read a run.

    Raises:
        RunError: there is none, it has no tick yet, or its files are damaged.
    """
    record = _read(folder, name, set())
    if not record.rows:
        raise RunError(f"{folder} has no tick yet, so there is nothing to report: `pggan-kit resume {folder}` goes on")
    return record


def _read(folder: Path, name: str | None, seen: set[Path]) -> RunRecord:
    files = RunDirectory.open(folder)
    about = files.about()
    rows, transitions = files.stats(), JsonLines(folder / "transitions.jsonl").read()
    trunk = _trunk(about, folder, seen | {folder.resolve()})
    if trunk is not None:
        clock = about["from"]["images"]
        rows = [row for row in trunk.rows if row["images"] <= clock] + rows
        transitions = [row for row in trunk.transitions if row["images"] <= clock] + transitions
    given = files.config_text()
    try:
        operative = (folder / "operative.gin").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"cannot read {folder / 'operative.gin'}: {error}") from error
    shown = name or folder.resolve().name
    return RunRecord(shown, folder, trunk, about, given, operative, rows, transitions, stages_of(rows, folder))


def _trunk(about: Mapping[str, Any], folder: Path, seen: set[Path]) -> RunRecord | None:
    """The run that a branch began from; None for others, and where it is gone."""
    origin = about.get("from")
    if not isinstance(origin, dict) or not isinstance(origin.get("run"), str) or type(origin.get("images")) is not int:
        return None
    path = Path(origin["run"])
    if not path.is_absolute():
        raise RunError(
            f"{folder / 'run.json'} is damaged: it names the run that it began from by a relative path, {path}"
        )
    if path.resolve() in seen or not (path / "run.json").is_file():
        return None
    return _read(path, None, seen)


def stages_of(rows: Sequence[Mapping[str, Any]], folder: Path) -> list[StageRecord]:
    """The stages that ticks tell of.

    Raises:
        RunError: a tick that does not say where it stood.
    """
    stages: list[StageRecord] = []
    by_stage: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        if not all(finite(row.get(f"Progress/{name}")) for name in ("stage", "size", "alpha")):
            raise RunError(f"{folder / 'stats.jsonl'} is damaged: the row of images {row['images']} names no stage")
        by_stage.setdefault(int(row["Progress/stage"]), []).append(row)
    for index, own in sorted(by_stage.items()):
        start = stages[-1].end if stages else 0
        faded = [row["images"] for row in own if row["Progress/alpha"] < 1]
        end = own[-1]["images"]
        seconds = sum(row["Timing/seconds"] for row in own if finite(row.get("Timing/seconds")))
        pace = (end - start) / seconds if seconds > 0 else 0.0
        stages.append(StageRecord(index, int(own[0]["Progress/size"]), start, end, max(faded, default=None), pace))
    return stages


def named_apart(folders: Sequence[Path]) -> list[str]:
    """A short name for each folder, none twice: its own, with as many of its parents as it takes."""
    parts = [folder.resolve().parts for folder in folders]
    names = [own[-1] for own in parts]
    depth = 1
    while len(set(names)) < len(names) and depth < max(map(len, parts)):
        depth += 1
        names = ["/".join(own[-depth:]) for own in parts]
    return names
