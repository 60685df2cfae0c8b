"""Many runs from few: folders with the settings, the seed and the noise that real runs of other seeds would have."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.system.json_lines import JsonLines


def copy_with_seed(run: Path, target: Path, seed: int, shift: float = 0.0) -> Path:
    """Copy a run's folder as one of another seed, with the metric `Metrics/FID` and noise on all losses.

    Args:
        run: The run, whose seed is 0.
        target: The copy.
        seed: The seed.
        shift: Number that is added to the logarithm of FID.
    """
    shutil.copytree(run, target)

    # The settings of another seed.
    operative = target / "operative.gin"
    operative.write_text(re.sub(r"^train\.seed = 0$", f"train.seed = {seed}", operative.read_text(), flags=re.M))
    about = json.loads((target / "run.json").read_text())
    about["processes"][0]["overrides"].append(f"train.seed = {seed}")
    about["directions"] = {"FID": "lower"}
    (target / "run.json").write_text(json.dumps(about))

    # Numbers of another seed.
    draw = random.Random(seed)
    own = draw.gauss(0, 0.1)
    stats = JsonLines(target / "stats.jsonl")
    rows = stats.read()
    for row in rows:
        for tag in [tag for tag in row if tag.startswith("Loss/")]:
            row[tag] += draw.gauss(0, 0.1)
        quality = 5 - 1.6 * row["images"] / rows[-1]["images"] + shift + own + draw.gauss(0, 0.05)
        row["Metrics/FID"] = math.exp(quality)
    write_rows(stats.path, rows)
    return target


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows at once, without checksums, as if by hand: a run flushes each to the disk."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def lengthen_stats(run: Path, times: int) -> None:
    """Write each row of a run so many times, on a clock that runs so many times as far."""
    stats = JsonLines(run / "stats.jsonl")
    rows = []
    before = 0
    for row in stats.read():
        step = row["images"] - before
        for number in range(1, times + 1):
            rows.append({**row, "images": times * before + step * number})
        before = row["images"]
    write_rows(stats.path, rows)
