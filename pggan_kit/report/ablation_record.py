"""Read the folder of a finished ablation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pggan_kit.components import find_quantity
from pggan_kit.errors import RunError
from pggan_kit.evaluation.results_table import read_results
from pggan_kit.report.run_record import NoTickError, RunRecord, read_run
from pggan_kit.system.files import explain_damage, read_text

NUMBERS = ("equivalence", "smallest_effect", "correlation")
"""Entries of a contrast that the table shows beside the mean and its test."""

CONTRAST_ENTRIES = {"role", "n", "mean", "interval", "p", *NUMBERS}
"""Entries that each contrast of `analysis.json` has at least."""

TABLE_CORNER = "┏"
"""Character with which a table of `table.txt` begins."""

SCALES = ("log", "plain")
"""Scales on which runs are compared."""


@dataclass(frozen=True)
class AblationRecord:
    """The folder of an ablation.

    Attributes:
        name: Name for people.
        folder: The ablation's folder.
        plan: Content of `plan.json`: `variants`, `seeds`, `controls`, `contrasts`, `primary`, `margin`, `quantities`.
        results: Rows of `results.csv`, as text.
        table: Content of `table.txt`; empty where there is none yet.
        runs: Runs that left numbers, by variant and seed; none where only the results were kept.
    """

    name: str
    folder: Path
    plan: dict[str, Any]
    results: list[dict[str, str]]
    table: str
    runs: dict[tuple[str, int], RunRecord]

    @property
    def variants(self) -> list[str]:
        """The names of the variants, in the plan's order."""
        return list(self.plan["variants"])

    @property
    def controls(self) -> set[str]:
        """The names of the variants that are controls."""
        return set(self.plan.get("controls") or ())

    @property
    def primary(self) -> str:
        """The name of the primary endpoint."""
        return str(self.plan["primary"])

    @property
    def note(self) -> str:
        """The paragraph that somebody wrote above the tables of `table.txt`, as where results are withdrawn."""
        paragraph, blank_line, _ = self.table.partition("\n\n")
        if not blank_line or TABLE_CORNER in paragraph:
            return ""
        return paragraph.strip()

    @property
    def scale(self) -> str:
        """The scale on which runs are compared: `log`, as all were before plans recorded it, or `plain`."""
        quantity = find_quantity(self.plan.get("quantities", {}), self.primary)
        return "log" if quantity is None else str(quantity["scale"])

    @property
    def logarithmic(self) -> bool:
        """Whether runs are compared by the endpoint's logarithm."""
        return self.scale == "log"

    @property
    def direction(self) -> str | None:
        """Which values of the endpoint are better, `lower` or `higher`; None of a plan that does not record it."""
        quantity = find_quantity(self.plan.get("quantities", {}), self.primary)
        return None if quantity is None else quantity.get("direction")

    def is_planned(self, seed: int) -> bool:
        """Return whether a seed is one of the first start; others were added later."""
        return "seeds" not in self.plan or seed in self.plan["seeds"]

    def final(self) -> dict[str, dict[int, float]]:
        """Return the primary endpoint of each run of a planned seed that has one, by variant and seed."""
        values: dict[str, dict[int, float]] = {name: {} for name in self.variants}
        for row in self.results:
            variant = row["variant"]
            seed = int(row["seed"])
            value = parse_number(row["value"])
            if row["metric"] == self.primary and variant in values and value is not None and self.is_planned(seed):
                values[variant][seed] = value
        return values

    def select_plotted(self) -> dict[str, dict[int, float]]:
        """Return the values of `final` that have a place on the axis: on a logarithmic one, those above 0."""
        if not self.logarithmic:
            return self.final()
        values = self.final()
        return {name: {seed: own[seed] for seed in own if own[seed] > 0} for name, own in values.items()}

    def pick_one_of_each(self) -> list[RunRecord]:
        """Return a run of each variant, all of the first seed that most of them have."""
        seeds = sorted({seed for _, seed in self.runs})
        if not seeds:
            return []
        best = max(seeds, key=self._count_runs)
        return [self.runs[name, best] for name in self.variants if (name, best) in self.runs]

    def _count_runs(self, seed: int) -> int:
        return sum((name, seed) in self.runs for name in self.variants)

    def pick_contrasted_pair(self) -> list[RunRecord]:
        """Return two runs of one seed and of the first contrast that has such; the second is the one compared with.

        Where no two variants are compared alone, as with factors, they are of the first variant and another one.
        """
        seeds = sorted({seed for _, seed in self.runs})
        first = self.variants[0]
        for variant, against in self.plan["contrasts"] or [(name, first) for name in self.variants[1:]]:
            for seed in seeds:
                if (variant, seed) in self.runs and (against, seed) in self.runs:
                    return [self.runs[variant, seed], self.runs[against, seed]]
        return []


def is_ablation(folder: Path) -> bool:
    """Return whether a folder is one of `pggan-kit ablate`."""
    return (folder / "plan.json").is_file()


def read_ablation(folder: Path) -> AblationRecord:
    """Read an ablation.

    Raises:
        RunError: The plan or the results are damaged, or nothing has run yet.
    """
    plan = _read_plan(folder / "plan.json")
    results = read_results(folder / "results.csv")
    table = _read_table(folder / "table.txt")
    runs = _read_runs(folder / "runs", plan["variants"])
    if not runs and not results:
        raise RunError(f"{folder} has no results yet: continue it with `pggan-kit ablate`")
    name = str(plan.get("name") or folder.resolve().name)
    return AblationRecord(name, folder, plan, results, table, runs)


def _read_plan(path: Path) -> dict[str, Any]:
    with explain_damage(path):
        plan = json.loads(read_text(path))
        complete = _is_complete(plan)
    if not complete:
        raise RunError(f"{path} is damaged: it does not name variants, contrasts and a primary endpoint")
    return dict(plan)


def _is_complete(plan: Any) -> bool:
    """Return whether a plan has what a report needs; a plan of another shape may raise an error instead."""
    variants = plan["variants"]
    if not isinstance(variants, dict) or not isinstance(plan["primary"], str):
        return False

    # Variants name folders.
    if any("/" in name or name in ("", ".", "..") for name in variants):
        return False
    for pair in plan["contrasts"]:
        if len(pair) != 2 or not set(pair) <= set(variants):
            return False
    return all(quantity["scale"] in SCALES for quantity in plan.get("quantities", {}).values())


def _read_table(path: Path) -> str:
    try:
        return read_text(path) if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"cannot read {path}: {error}") from error


def _read_runs(folder: Path, variants: Mapping[str, Any]) -> dict[tuple[str, int], RunRecord]:
    """Return the runs of an ablation that have a tick, by variant and seed."""
    runs = {}
    for variant in variants:
        for path in sorted((folder / variant).glob("*")):
            if not path.name.isdecimal() or not (path / "run.json").is_file():
                continue
            try:
                runs[variant, int(path.name)] = read_run(path, f"{variant}, seed {path.name}")
            except NoTickError:
                continue  # it has just begun, or failed before its first tick
    return runs


def read_analysis(ablation: AblationRecord) -> dict[str, Any]:
    """Return the content of `analysis.json`; before there is one, no contrast and a note that says so.

    Raises:
        RunError: The file is damaged, or cannot be read.
    """
    path = ablation.folder / "analysis.json"
    if path.exists():
        return read_analysis_file(path)
    if ablation.table:
        return {"contrasts": []}
    ended = len({(row["variant"], row["seed"]) for row in ablation.results})
    return {
        "contrasts": [],
        "note": f"UNFINISHED: there is no analysis yet, and no contrast has a verdict. {ended} runs have results; what "
        "they say may change.",
    }


def read_analysis_file(path: Path) -> dict[str, Any]:
    """Return the content of a file as `analysis.json`.

    Raises:
        RunError: The file is damaged, or cannot be read.
    """
    with explain_damage(path):
        analysis = json.loads(read_text(path))

        # Entries are used without further checks.
        for contrast in analysis["contrasts"]:
            is_named = "name" in contrast or {"variant", "against"} <= set(contrast)
            if not set(contrast) >= CONTRAST_ENTRIES or not is_named:
                raise ValueError("a contrast lacks an entry")
    return dict(analysis)


def name_contrast(contrast: Mapping[str, Any]) -> str:
    """Return a contrast's name for people."""
    # The first published contrasts were pairs without a name.
    if "name" in contrast:
        return str(contrast["name"])
    return f"{contrast['variant']} - {contrast['against']}"


def parse_number(text: str) -> float | None:
    """Return a finite number, None for other text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
