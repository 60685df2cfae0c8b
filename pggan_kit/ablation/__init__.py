"""Ablations: variants of one experiment, trained with the same seeds and compared by the rules of a plan.

    analysis = pggan_kit.ablation.ablate("experiments/ablations/switch.gin", out="runs/switch")
    print(pggan_kit.ablation.render_text(analysis))

Needs scipy (the extra `ablation`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.errors import ConfigError

try:
    import scipy  # noqa: F401  # a missing package is reported here, and not after hours of training
except ModuleNotFoundError:
    raise ConfigError("ablations need scipy: pip install 'pggan_kit[ablation]'") from None

from pggan_kit.ablation import conduct, plan_reading
from pggan_kit.ablation.cost import estimate_cost
from pggan_kit.ablation.plan import Plan
from pggan_kit.ablation.reanalysis import analyse, evaluate_again
from pggan_kit.ablation.table import render_text
from pggan_kit.trials.settings_files import choose_folder


def ablate(
    config: str | Path,
    bindings: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    plugins: Sequence[str | Path] = (),
    say: Callable[[str], None] = print,
    adopt: Sequence[str | Path] = (),
) -> dict[str, Any]:
    """Run an ablation to its end, from wherever it was stopped; write `results.csv`, `analysis.json` and `table.txt`.

    Args:
        config: The gin file that binds `ablate.*`, see `settings.Ablation`.
        bindings: Overrides of the plan (`ablate.*`, `launchers.*`, macros of its file), and of the experiments of all
            variants.
        out: The ablation's folder; None: `runs/NAME`.
        plugins: Files of plugins beside the installed ones.
        say: Function that is called with one line for each trial that ends, or has to wait.
        adopt: Directories of finished runs, each of which takes the place of the trial whose experiment and seed it
            has. What rests on them is exploratory.

    Returns:
        The content of `analysis.json`, see `analysis.analyse_results`.

    Raises:
        UserError: The input is wrong, or `out` holds an ablation with another plan, or files that a new one would
            replace.
        TrainingError: Some trials did not end.
        Interrupted: A signal stopped it; called again, it continues.
    """
    folder = choose_folder(config, out)
    # Variants that the plan in the folder lacks were added later.
    plan, launcher = plan_reading.read_plan(config, bindings, plugins, folder)

    # Runs that somebody trained before take the place of trials.
    adopted = [Path(run) for run in adopt]
    return conduct.run_ablation(plan, launcher, folder, say, adopt=adopted, plugins=plugins)


__all__ = ["Plan", "ablate", "analyse", "estimate_cost", "evaluate_again", "render_text"]
