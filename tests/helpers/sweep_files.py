"""The gin file of a tiny sweep, whose trials run in this process, and plans of sweeps that train nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from helpers.paths import ABLATION_PLUGIN, STUB_PLUGIN

from pggan_kit.sweeps.plan import SweepPlan, write_plan
from pggan_kit.sweeps.study import LOCKS

SWEEP = """\
sweep.base = 'tiny.gin'
sweep.parameters = {'g/optimizers.Adam.lr': ('log', 1e-4, 1e-2), 'train.latent_size': ('choice', [4, 8])}
sweep.trials = 3
sweep.metric = 'gap'
sweep.evaluation = ['train.metrics = [@metrics.Gap()]', 'evaluation.count = 4']
sweep.launcher = @launchers.Here()
"""

PLUGINS = [str(STUB_PLUGIN), str(ABLATION_PLUGIN)]

TWO_STAGES = "schedule.sizes = (4, 8)"


def write_sweep(folder: Path, **changes: Any) -> SweepPlan:
    """Write the plan of a sweep whose experiment is never built, and return it.

    Args:
        folder: The sweep's folder.
        changes: Fields of the plan.
    """
    plan = SweepPlan(
        name="sweep",
        config="some.setting = 1\n",
        parameters={"optimizers.Adam.lr": ["log", 1e-4, 1e-2]},
        trials=4,
        seeds={"0": ["train.seed = 0"]},
        metric="gap",
        evaluation=[],
        average=None,
        direction="lower",
        scale="log",
        stages=[1],
        sizes=["8x8"],
        search="random",
        startup=10,
        pruner=None,
        search_seed=0,
        plugins={},
    )
    changed = dataclasses.replace(plan, **changes)
    (folder / LOCKS).mkdir(parents=True, exist_ok=True)
    write_plan(changed, folder)
    return changed
