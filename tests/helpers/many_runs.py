"""Many runs from few: folders with the settings, the seed and the noise that real runs of other seeds would have."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

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
    operative = target / "operative.gin"
    operative.write_text(re.sub(r"^train\.seed = 0$", f"train.seed = {seed}", operative.read_text(), flags=re.M))
    about = json.loads((target / "run.json").read_text())
    about["processes"][0]["overrides"].append(f"train.seed = {seed}")
    (target / "run.json").write_text(json.dumps(about))

    draw = random.Random(seed)
    own = draw.gauss(0, 0.1)
    stats = JsonLines(target / "stats.jsonl")
    rows = stats.read()
    stats.path.unlink()
    for row in rows:
        for tag in [tag for tag in row if tag.startswith("Loss/")]:
            row[tag] += draw.gauss(0, 0.1)
        quality = 5 - 0.04 * row["images"] + shift + own + draw.gauss(0, 0.05)
        stats.append({**row, "Metrics/FID": 2.718**quality})
    return target
