"""A plugin for tests of ablations: a metric, a launcher that runs trials in this process, a loss that
diverges, and a switch that keeps runs small."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import MappingProxyType

import torch
from click.testing import CliRunner
from torch import Tensor

from pggan_kit import Component, Quantity, Scores, hookimpl
from pggan_kit.components import Trial
from pggan_plugins.losses import Hinge

SWITCH = """\
ablate.base = 'tiny.gin'
ablate.variants = {'linear': [], 'hard': ['train.switch = @switches.Hard()']}
ablate.seeds = (0, 1)
ablate.contrasts = [('hard', 'linear')]
ablate.primary = 'gap'
ablate.margin = 0.5
ablate.evaluation = ['train.metrics = [@metrics.Gap()]', 'evaluation.count = 4']
ablate.launcher = @launchers.Here()
"""


class Gap:
    """The distance between the mean gray values, above 0."""

    quantities = MappingProxyType(
        {"gap": Quantity("lower", (0.0, math.inf), "log"), "signed": Quantity("higher", (-2.0, 2.0))}
    )

    def describe(self, images: Tensor) -> Tensor:
        return images.flatten(1).mean(1)

    def fingerprint(self) -> str:
        return "means"

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        difference = real.mean() - fake.mean()
        return {"gap": float(difference.abs()) + 1e-3, "signed": float(difference)}


class Here:
    """Runs trials one after another in this process, and is interrupted after `stop_after` of them."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after

    def launch(self, trials: Sequence[Trial], ended: Callable[[Trial, int], None] | None = None) -> list[int]:
        from pggan_kit.cli import main

        codes = []
        for number, trial in enumerate(trials):
            if number == self.stop_after:
                raise KeyboardInterrupt

            # What follows `python -c CODE` is the command line.
            result = CliRunner().invoke(main, list(trial.command)[3:])
            assert trial.log is not None
            trial.log.write_text(result.output)
            codes.append(result.exit_code)
            if ended is not None:
                ended(trial, result.exit_code)
        return codes


class Diverging(Hinge):
    """A loss that becomes NaN at one size, in the run with one seed."""

    def __init__(self, height: int, seed: int) -> None:
        super().__init__()
        self.height = height
        self.seed = seed
        self.diverges = False

    @hookimpl
    def before_stage(self, run: object, stage: object) -> None:
        is_stage = stage.height == self.height  # type: ignore[attr-defined]
        is_run = run.experiment.seed == self.seed  # type: ignore[attr-defined]
        self.diverges = is_stage and is_run

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        terms = super().generator(fake, real)
        if self.diverges:
            terms = {name: term * torch.nan for name, term in terms.items()}
        return terms


class Keeping:
    """A switch that never lets the run leave a stage."""

    def __init__(self, stage: int = 0) -> None:
        self.stage = stage

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        return progress

    @hookimpl
    def should_advance(self, stage: object) -> bool | None:
        return False if stage.index == self.stage else None  # type: ignore[attr-defined]


@hookimpl
def components() -> list[Component]:
    return [
        Component("metrics", "Gap", Gap),
        Component("launchers", "Here", Here),
        Component("losses", "Diverging", Diverging),
        Component("switches", "Keeping", Keeping),
    ]
