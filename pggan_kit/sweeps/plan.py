"""What all trials of a sweep depend on, and its file: fixed at the first start, the same at each later one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pggan_kit.errors import RunError
from pggan_kit.sweeps.spaces import Range, read_range
from pggan_kit.system.files import write_atomically
from pggan_kit.system.json_text import json_text
from pggan_kit.trials.plan_files import describe_change, load_plan_file, write_plan_file

PLAN = "sweep.json"
"""Name of the plan's file in a sweep's folder."""

BASE = "base.gin"
"""Name of the file with the experiment, without the values that are searched."""

CONFIG = "config.gin"
"""Name of the file that trials train. It includes the experiment: what values of parameters displace has no effect."""

NOT_FIXED = ("name", "trials")
"""Fields of a plan that may change after the first start."""


@dataclass(frozen=True)
class SweepPlan:
    """All that the trials of a sweep and their values depend on.

    Attributes:
        name: Stem of the gin file, or the variant.
        config: Whole experiment as gin text.
        parameters: Range of each parameter as `Range.record` gives it.
        trials: Number of trials.
        seeds: Bindings of the run with each seed, by the seed.
        metric, evaluation: See `settings.Sweep`.
        average: Average of the generator that is measured: its name, or a width of a power function. None for the
            first of `train.averages`.
        direction: `lower` or `higher`: which values are better.
        scale: `log` if logarithms are compared, else `plain`.
        stages: Numbers of the stages at whose ends a trial is measured; the last is that of the experiment.
        sizes: Size of each of these stages.
        search, startup, pruner, search_seed: See `settings.Tuning`.
        plugins: SHA-256 of each file beside the installed plugins, by its absolute path.
    """

    name: str
    config: str
    parameters: dict[str, list[Any]]
    trials: int
    seeds: dict[str, list[str]]
    metric: str
    evaluation: list[str]
    average: str | float | None
    direction: str
    scale: str
    stages: list[int]
    sizes: list[str]
    search: str
    startup: int
    pruner: str | None
    search_seed: int
    plugins: dict[str, str]

    @property
    def space(self) -> dict[str, Range]:
        """The range of each parameter."""
        return {name: read_range(name, written) for name, written in self.parameters.items()}

    @property
    def fixed_fields(self) -> dict[str, Any]:
        """The fields that may not change once a trial has begun, by name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in NOT_FIXED}

    @property
    def hash(self) -> str:
        """The SHA-256 of `fixed_fields`."""
        # The order of parameters counts.
        text = json.dumps(self.fixed_fields, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def write_plan(plan: SweepPlan, folder: Path) -> None:
    """Write `sweep.json`, and the experiment's config beside it."""
    write_atomically(folder / BASE, plan.config.encode())
    write_atomically(folder / CONFIG, f"include '{BASE}'\n".encode())
    write_plan_file(plan, folder / PLAN)


def load_plan(folder: Path) -> SweepPlan:
    """Load the plan that `sweep.json` holds.

    Raises:
        RunError: The file is missing, of another version, or not what was written.
    """
    return load_plan_file(
        folder / PLAN, SweepPlan, "sweep", f"Its trials.csv, best.json and best.gin can be read without {PLAN}"
    )


def require_same_plan(plan: SweepPlan, folder: Path) -> None:
    """Check that a folder holds no other plan, apart from the number of trials.

    Raises:
        RunError: It holds one; the message names what differs.
    """
    if not (folder / PLAN).exists():
        return
    old = load_plan(folder)
    if old.hash == plan.hash:
        return
    old_fields = old.fixed_fields
    new_fields = plan.fixed_fields
    # The order of parameters counts. The config has their first values, so it is compared last.
    names = sorted(old_fields, key=lambda name: name == "config")
    name = next(name for name in names if json_text(old_fields[name]) != json_text(new_fields[name]))
    change = describe_change(old_fields[name], new_fields[name])
    raise RunError(
        f"{folder} was begun with another sweep ({name} {change}). Change it back, or start from scratch in another "
        "folder with --out"
    )
