"""Read the results of an ablation: from its trials, or from `results.csv` where their folders are gone."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pggan_kit.ablation import trial as trials
from pggan_kit.ablation.endpoints import CENSORED, name_images
from pggan_kit.ablation.plan import Plan
from pggan_kit.evaluation.results_table import read_results

TABLE = "results.csv"
"""Name of the file with every value of every trial."""

FLOOR = "_floor"
"""Suffix of the metric's name in the row of a noise floor, which follows that of the value."""

Key = tuple[str, int]
"""Name and seed of a trial."""

Results = dict[Key, dict[str, Any]]
"""Results as `trial.read_result` gives them, by (variant, seed)."""


def read_trials(plan: Plan, folder: Path) -> Results:
    """Return the results of the trials that have ended, from their own folders."""
    results: Results = {}
    for key in plan.list_runs():
        result = trials.read_result(trials.locate_trial(folder, *key))
        if result is not None:
            results[key] = result
    return results


def read_table(plan: Plan, folder: Path) -> Results:
    """Return the results in `results.csv`; none if there is no such file.

    Raises:
        RunError: The file is damaged, or cannot be read.
    """
    # Rows of variants or seeds that the plan does not have are left out.
    keys = set(plan.list_runs())
    censored = {name_images(name, quality) for name, quality in plan.quality.items()}
    results: Results = {}
    for row in read_results(folder / TABLE):
        key = (row["variant"], int(row["seed"]))
        if key in keys:
            _add_row(results, key, row, censored)
            if row.get("tuned") and row["variant"] in plan.tune:
                results[key]["tuned"] = _split_tuned(row["tuned"], plan.searches[row["variant"]].parameters)
    return results


def _split_tuned(text: str, parameters: Collection[str]) -> list[str]:
    """Return the bindings that a cell joins by "; ", which may also stand in the value of a choice."""
    names = "|".join(re.escape(name) for name in parameters)
    return re.split(rf"; (?=(?:{names}) = )", text)


def describe_irreplaceable(plan: Plan, folder: Path, results: Results) -> str | None:
    """Return a clause on the results that `results.csv` alone has, since their runs are gone; None if there are none.

    A table without them may not take the place of that file.

    Args:
        plan: The plan.
        folder: The folder of the table.
        results: Results of the trials whose runs are there.

    Raises:
        RunError: The file is damaged, or cannot be read.
    """
    gone = [key for key in read_table(plan, folder) if key not in results]
    if not gone:
        return None
    name, seed = gone[0]
    nouns = "trial whose run is" if len(gone) == 1 else "trials whose runs are"
    return f"{folder / TABLE} has results of {len(gone)} {nouns} gone, among them {name} {seed}"


def _add_row(results: Results, key: Key, row: Mapping[str, str], censored: Collection[str]) -> None:
    """Add a row of `results.csv` to the result of its trial.

    Args:
        results: What has been read of the file.
        key: The trial.
        row: The row.
        censored: Names of images to a quality, which a run may never have reached.
    """
    # What all rows of a trial repeat is taken from its first one.
    if key not in results:
        results[key] = {
            "failed": None,
            "images": int(row["images"]),
            "rows": [],
            "revision": row["revision"],
            "hardware": row["hardware"],
        }
        if row.get("adopted"):
            results[key]["adopted"] = row["adopted"]
    result = results[key]
    if row["failed"] == "1":
        result["failed"] = row.get("reason") or f"see {TABLE}"
        return

    value = float(row["value"]) if row["value"] else None
    rows = result["rows"]
    # A floor is a row of its own behind that of its metric, and belongs to it.
    if rows and rows[-1]["floor"] is None and row["metric"] == f"{rows[-1]['metric']}{FLOOR}":
        rows[-1]["floor"] = value
        return
    added = {
        "metric": row["metric"],
        "value": value,
        "floor": None,
        "stage": int(row["stage"]) if row["stage"] else None,
        "images": int(row["images"]),
        "average": row.get("average") or None,
    }
    if row["metric"] in censored:
        added[CENSORED] = int(row[CENSORED]) if row.get(CENSORED) else None
    rows.append(added)
