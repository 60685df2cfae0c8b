"""Folders of ablations as `pggan-kit ablate` leaves them, without its runs."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

VALUES = {("soft", 0): 4.0, ("soft", 1): 9.0, ("hard", 0): 8.0, ("hard", 1): 18.0}
COLUMNS = ("variant", "seed", "stage", "images", "metric", "value", "failed", "revision", "hardware", "exploratory")
CONTRAST = {
    "variant": "hard",
    "against": "soft",
    "role": "confirmatory",
    "n": 2,
    "mean": math.log(2),
    "interval": [0.5, 0.9],
    "p": 0.5,
    "holm": 0.5,
    "equivalence": 0.75,
    "smallest_effect": 1.25,
    "correlation": None,
    "verdict": "undecided",
}


def write_results(folder: Path, more: tuple[tuple[Any, ...], ...] = ()) -> None:
    """Write plan, results, analysis and table; the runs are not needed.

    Args:
        folder: The ablation's folder.
        more: Further rows of the results.
    """
    # The plan.
    plan = {
        "name": "switch",
        "variants": {"soft": ["train.seed = 0"], "hard": ["train.switch = @switches.Hard()"]},
        "seeds": [0, 1],
        "controls": {},
        "contrasts": [["hard", "soft"]],
        "primary": "FID",
        "margin": 0.1,
    }
    (folder / "plan.json").write_text(json.dumps(plan))

    # What its runs gave.
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for (variant, seed), value in VALUES.items():
            writer.writerow([variant, seed, 2, 40, "FID", value, 0, "abc", "a CPU", 0])
            writer.writerow([variant, seed, 2, 40, "FID_floor", 1.0, 0, "abc", "a CPU", 0])
        writer.writerows(more)
    (folder / "table.txt").write_text("hard - soft  +0.693  undecided <&>\n")
    (folder / "analysis.json").write_text(json.dumps({"contrasts": [CONTRAST]}))
