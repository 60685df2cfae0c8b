"""Ablations: variants of one experiment, trained with the same seeds and compared as their plan says.

    found = pggan_kit.ablation.ablate("experiments/ablations/switch.gin", out="runs/switch")
    print(pggan_kit.ablation.text(found))

Needs scipy (the extra `ablation`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.errors import ConfigError

try:
    import scipy  # noqa: F401  # said now, not after hours of training
except ModuleNotFoundError:
    raise ConfigError("ablations need scipy: pip install 'pggan_kit[ablation]'") from None

from pggan_kit.ablation import conduct as running
from pggan_kit.ablation import plan as plans
from pggan_kit.ablation.cost import cost
from pggan_kit.ablation.plan import Plan
from pggan_kit.ablation.table import text
from pggan_kit.runs.directory import ROOT


def ablate(
    config: str | Path,
    bindings: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    plugins: Sequence[str | Path] = (),
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run an ablation to its end, from wherever it was left; write `results.csv`, `analysis.json` and `table.txt`.

    Args:
        config: the gin file that binds `ablate.*`, see `settings.Ablation`.
        bindings: overrides of the plan (`ablate.*`, `launchers.*`), and of the experiments of all variants.
        out: the ablation's folder; None: `runs/NAME`.
        plugins: files of plugins beside the installed ones.
        say: told of each trial that ends.

    Returns:
        The content of `analysis.json`, see `analysis.analyse`.

    Raises:
        UserError: the input was wrong, or is another plan than the one begun in `out`.
        TrainingError: trials could not be brought to an end.
        Interrupted: a signal stopped it; called again, it goes on.
    """
    plan, launcher = plans.read(config, bindings, plugins)
    return running.run(plan, launcher, ROOT / plan.name if out is None else Path(out), say)


__all__ = ["Plan", "ablate", "cost", "text"]
