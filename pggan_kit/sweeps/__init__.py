"""Sweeps: searches for the values of an experiment's parameters, by Optuna.

    best = pggan_kit.sweeps.sweep("experiments/sweeps/adam.gin", out="runs/adam")
    print(best["bindings"])

Needs optuna (the extra `sweep`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.api.prepare import Prepared, prepare
from pggan_kit.benchmarking import plan as planning
from pggan_kit.benchmarking.evaluation_cost import EvaluationClock
from pggan_kit.errors import RunError
from pggan_kit.runs.targets import SWEEP, require_target_outside_runs, require_unused_folder
from pggan_kit.sweeps import conduct, cost, plan_reading
from pggan_kit.sweeps.plan import SweepPlan
from pggan_kit.trials.settings_files import choose_folder


def sweep(
    config: str | Path,
    bindings: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    plugins: Sequence[str | Path] = (),
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run a sweep to its end, from wherever it was stopped; write `trials.csv`, `best.json` and `best.gin`.

    Several processes and machines may call it at once with the same arguments and a folder that they share.

    Args:
        config: The gin file that binds `sweep.*`, see `settings.Sweep`.
        bindings: Overrides of the sweep (`sweep.*`, `launchers.*`, macros of its file), and of its experiment.
        out: The sweep's folder; None: `runs/NAME`.
        plugins: Files of plugins beside the installed ones.
        say: Function that is called with one line for each trial that ends, or has to wait.

    Returns:
        The content of `best.json`: `trial`, `metric`, `value`, `bindings`, `trials`, `ended_early`, `seeds`, `hash`.

    Raises:
        UserError: The input is wrong, or `out` holds another sweep or files that a new one would replace.
        TrainingError: Some trials did not end, or none has a value.
        Interrupted: A signal stopped it; called again, it continues.
    """
    # All that can be refused is refused before the folder is made.
    folder = choose_folder(config, out)
    read = plan_reading.read_sweep(config, bindings, plugins)
    require_target_outside_runs("--out", folder)
    require_unused_folder("--out", folder, SWEEP)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out {folder}: {error.strerror}") from error

    # The lock says that a process of this machine runs the trials.
    with conduct.hold_own_lock(folder) as owner:
        conduct.run_sweeps({folder: read.plan}, read.launcher, owner, say, plugins)
    return conduct.read_best(folder, read.plan)


def estimate_cost(
    config: str | Path, bindings: Sequence[str] = (), plugins: Sequence[str | Path] = ()
) -> tuple[SweepPlan, dict[str, Any]]:
    """Return the plan of a sweep, and what one run of its trials costs, see `cost.estimate_trial`; train nothing.

    Args:
        config, bindings, plugins: See `sweep`.
    """
    read = plan_reading.read_sweep(config, bindings, plugins)

    def prepare_with(further: Sequence[str]) -> Prepared:
        return prepare(read.base, [*read.bindings, *further], read.files)

    stages = planning.plan(read.base, read.bindings, read.files, with_metrics=False)
    return read.plan, cost.estimate_trial(read.plan, stages, EvaluationClock(), prepare_with)


__all__ = ["SweepPlan", "estimate_cost", "sweep"]
