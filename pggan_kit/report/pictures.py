"""What a run's parts, built anew, have to show: images of the same latents, and alpha."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from pggan_kit.api.prepare import recorded
from pggan_kit.api.sample import draw
from pggan_kit.errors import TrainingError, UserError
from pggan_kit.report.alpha_lines import Trained, alpha_lines
from pggan_kit.report.records import Curve, RunRecord
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.generators import TrainedGenerator, restored
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.system.seeding import fork_random_numbers

GRID = 16
"""Images in a grid."""

STRIP = 9
"""Latents in the strip through a fade."""

ALPHAS = tuple(i / 8 for i in range(9))

Say = Callable[[str], None]
Restore = Callable[..., TrainedGenerator]


@dataclass
class Pictures:
    """Images of the latents that `sampling.draw` makes of `seed`; equal for runs with one latent size.

    Attributes:
        ends: by stage, `GRID` images (N, h, w, C), uint8, at its end, or at the run's last checkpoint.
        clocks, alphas: by stage, where those stand.
        begins: by stage, alpha and such images right after the growth, before anything was trained.
        fades: by stage, for each of `ALPHAS` images of the first latents from the last checkpoint before the fade's
            end.
        latent_size: Z; 0 where nothing could be drawn.
        alpha_lines: see `alphas.alpha_lines`; None where only ticks tell of alpha.
    """

    ends: dict[int, np.ndarray] = field(default_factory=dict)
    clocks: dict[int, int] = field(default_factory=dict)
    alphas: dict[int, float] = field(default_factory=dict)
    begins: dict[int, tuple[float, np.ndarray]] = field(default_factory=dict)
    fades: dict[int, list[np.ndarray]] = field(default_factory=dict)
    latent_size: int = 0
    alpha_lines: list[Curve] | None = None


def draw_run(run: RunRecord, say: Say, plugins: Sequence[Any] = (), seed: int = 0) -> Pictures:
    """Draw from all checkpoints that were kept, those of the trunk included.

    Args:
        run: the run.
        say: told in one sentence of what could not be drawn; the rest is.
        plugins: instead of the plugin files that the run used.
        seed: of the latents.
    """
    pictures, chain = Pictures(), list(run.lineage())
    try:
        built = [recorded(ancestor.folder, plugins)[0] for ancestor in chain]
        trained = [(prepared.schedule(), prepared.hooks()) for prepared in built]
        pictures.alpha_lines = _alpha_lines(run, trained, say)
        restore = [partial(restored, old.built.experiment, *had) for old, had in zip(built, trained, strict=True)]
        with fork_random_numbers():
            for place, ancestor in enumerate(chain):
                heir = min(place + 1, len(chain) - 1)
                limit = chain[heir].about["from"]["images"] if heir > place else math.inf
                for saved in RunDirectory(ancestor.folder).checkpoints().kept(say):
                    if saved.images > limit:
                        continue
                    _draw(pictures, saved, restore[place], seed)
                    if saved.stage_over and saved.stage < run.stages[-1].index:
                        grew = restore[heir if saved.images == limit else place](saved, grown=True)
                        pictures.begins[saved.stage + 1] = _alpha(grew), draw(grew, GRID, seed)
    except (UserError, TrainingError) as error:
        say(f"{run.folder}: not all pictures can be drawn: {error}")
    return pictures


def _alpha_lines(run: RunRecord, trained: Trained, say: Say) -> list[Curve] | None:
    try:
        return alpha_lines(run, trained)
    except (UserError, TrainingError) as error:
        say(f"{run.folder}: alpha is drawn at ticks only: {error}")
        return None


def _draw(pictures: Pictures, saved: Snapshot, restore: Restore, seed: int) -> None:
    """What one checkpoint shows; a later one of the same stage takes its place."""
    generator = restore(saved)
    stage = saved.stage
    pictures.latent_size = generator.latent_size
    if generator.alpha is not None and not saved.stage_over:
        pictures.fades[stage] = along_fade(generator, seed)
    pictures.ends[stage] = draw(generator, GRID, seed)
    pictures.clocks[stage], pictures.alphas[stage] = saved.images, _alpha(generator)


def _alpha(generator: TrainedGenerator) -> float:
    return 1.0 if generator.alpha is None else float(generator.alpha)


def along_fade(generator: TrainedGenerator, seed: int) -> list[np.ndarray]:
    """Return images of the first latents at each of `ALPHAS`."""
    return [draw(generator, GRID, seed, alpha=alpha)[:STRIP] for alpha in ALPHAS]
