"""Read the folder of a finished ablation."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pggan_kit.errors import RunError
from pggan_kit.report.records import RunRecord, read_run

COLUMNS = ("variant", "seed", "stage", "images", "metric", "value", "failed", "revision", "hardware")
"""What `results.csv` has at least."""


NUMBERS = ("equivalence", "smallest_effect", "correlation")
"""Entries of a contrast that the table shows beside the mean and its test."""


@dataclass(frozen=True)
class AblationRecord:
    """An ablation's folder.

    Attributes:
        name: for people.
        plan: `plan.json`: `variants`, `seeds`, `controls`, `contrasts`, `primary`, `margin`, `quantities`.
        results: the rows of `results.csv`, as text.
        table: `table.txt`; empty where it is not yet there.
        runs: by variant and seed those that left numbers; none where only the results were kept.
    """

    name: str
    folder: Path
    plan: dict[str, Any]
    results: list[dict[str, str]]
    table: str
    runs: dict[tuple[str, int], RunRecord]

    @property
    def variants(self) -> list[str]:
        """Their names, in the plan's order."""
        return list(self.plan["variants"])

    @property
    def primary(self) -> str:
        """The endpoint's name."""
        return str(self.plan["primary"])

    @property
    def logarithmic(self) -> bool:
        """Whether runs are compared by the logarithm of the endpoint, as all were before plans noted it."""
        stated = self.plan.get("quantities", {}).get(self.primary, {"scale": "log"})
        return bool(stated["scale"] == "log")

    def final(self) -> dict[str, dict[int, float]]:
        """The primary endpoint of each run that gave one, by variant and seed, at the last stage; where it is compared
        by its logarithm, only what has one."""
        found: dict[str, dict[int, float]] = {name: {} for name in self.variants}
        last: dict[tuple[str, int], int] = {}
        for row in self.results:
            value, key = number(row["value"]), (row["variant"], int(row["seed"]))
            if row["metric"] != self.primary or value is None or row["variant"] not in found:
                continue
            if self.logarithmic and value <= 0:
                continue
            if int(row["images"]) >= last.get(key, 0):
                found[row["variant"]][int(row["seed"])] = value
                last[key] = int(row["images"])
        return found

    def one_of_each(self) -> list[RunRecord]:
        """A run of each variant, all of the first seed that most of them have."""
        seeds = sorted({seed for _, seed in self.runs})
        if not seeds:
            return []
        best = max(seeds, key=lambda seed: sum((name, seed) in self.runs for name in self.variants))
        return [self.runs[name, best] for name in self.variants if (name, best) in self.runs]

    def contrasted(self) -> list[RunRecord]:
        """Two runs of one seed: the first contrast's that are there, what is compared with on the right."""
        for one, other in self.plan["contrasts"]:
            for seed in sorted({seed for _, seed in self.runs}):
                if (one, seed) in self.runs and (other, seed) in self.runs:
                    return [self.runs[one, seed], self.runs[other, seed]]
        return []


def is_ablation(folder: Path) -> bool:
    """Whether a folder is one of `pggan-kit ablate`."""
    return (folder / "plan.json").is_file()


def read_ablation(folder: Path) -> AblationRecord:
    """Read an ablation.

    Raises:
        RunError: its plan or results are damaged, or nothing has run yet.
    """
    plan = _plan(folder / "plan.json")
    results = _results(folder / "results.csv")
    table = folder / "table.txt"
    try:
        text = table.read_text(encoding="utf-8") if table.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"cannot read {table}: {error}") from error
    runs = {}
    for variant in plan["variants"]:
        for path in sorted((folder / "runs" / variant).glob("*")):
            if path.name.isdecimal() and (path / "run.json").is_file():
                try:
                    runs[variant, int(path.name)] = read_run(path, f"{variant}, seed {path.name}")
                except RunError as error:
                    if "has no tick yet" not in str(error):
                        raise
    if not runs and not results:
        raise RunError(f"{folder} has no results yet: go on with `pggan-kit ablate`")
    name = str(plan.get("name") or folder.resolve().name)
    return AblationRecord(name, folder, plan, results, text, runs)


def _plan(path: Path) -> dict[str, Any]:
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        good = (
            isinstance(plan["variants"], dict)
            and not any("/" in name or name in ("", ".", "..") for name in plan["variants"])
            and isinstance(plan["primary"], str)
            and all(len(pair) == 2 and set(pair) <= set(plan["variants"]) for pair in plan["contrasts"])
            and all(stated["scale"] in ("log", "plain") for stated in plan.get("quantities", {}).values())
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    if not good:
        raise RunError(f"{path} is damaged: it does not name variants, contrasts and a primary endpoint")
    return dict(plan)


def _results(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"cannot read {path}: {error}") from error
    for line, row in enumerate(rows, start=2):
        wrong = [name for name in COLUMNS if not isinstance(row.get(name), str)]
        if wrong or not row["seed"].isdecimal() or (row["images"] and not row["images"].isdecimal()):
            raise RunError(f"{path} is damaged: line {line} has no good {', '.join(wrong) or 'seed or images'}")
    return rows


def number(text: str) -> float | None:
    """A finite number, None for other text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
