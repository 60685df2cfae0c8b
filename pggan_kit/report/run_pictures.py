"""Images of the same latents from all checkpoints of a run, and its alpha between ticks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pggan_kit.api.prepare import Prepared, prepare_run
from pggan_kit.api.sample import draw
from pggan_kit.errors import TrainingError, UserError
from pggan_kit.growth.moving_settings import list_moving_settings
from pggan_kit.pictures.frames import reduce_image
from pggan_kit.report.alpha_lines import POINTS, Trained, draw_alpha_lines
from pggan_kit.report.run_record import Curve, RunRecord
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.generators import TrainedGenerator, restore_generator
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.schedule import Schedule, value_at
from pggan_kit.system.seeding import fork_random_numbers

GRID = 16
"""Images in a grid."""

STRIP = 9
"""Latents in the strip through a fade."""

LARGEST = 128
"""Maximum of an image's longer side that is kept, in pixels: the page shows none larger."""

ALPHAS = tuple(i / 8 for i in range(9))
"""Alphas that the strip through a fade shows, as far as the switch takes them."""

Say = Callable[[str], None]
Restore = Callable[..., TrainedGenerator]


class FadeStrip(NamedTuple):
    """Images through a fade, all with the weights of one checkpoint.

    Attributes:
        alphas: Rising alphas of the generator.
        images: uint8 (N, h, w, C) of the first latents, for each alpha.
    """

    alphas: list[float]
    images: list[np.ndarray]


@dataclass
class RunPictures:
    """Images of the latents that `api.sample.draw` makes of a seed; equal for runs with one latent size.

    Attributes:
        ends: `GRID` images uint8 (N, h, w, C) by stage, at its end or at the run's last checkpoint. All images whose
            longer side is above `LARGEST` are reduced to it: those of some 1024 px would take gigabytes.
        sizes: Height and width at which the generator draws, by stage.
        clocks, alphas: Clock and alpha of those, by stage.
        begins: Alpha and such images by stage, right after the growth, before anything was trained; where asked for.
        fades: Strips by stage, from the last checkpoint before the fade's end.
        lacks_strips: Whether there are no strips since there would be too many in the page.
        average: Name of the average that they are drawn from; empty where nothing could be drawn.
        latent_size: Size Z of the latents; 0 where nothing could be drawn.
        alpha_lines: Alpha by clock for each stage, see `draw_alpha_lines`; None where only ticks record alpha.
        moving_settings: Values over the clock of the settings that move, by name.
    """

    ends: dict[int, np.ndarray] = field(default_factory=dict)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    clocks: dict[int, int] = field(default_factory=dict)
    alphas: dict[int, float] = field(default_factory=dict)
    begins: dict[int, tuple[float, np.ndarray]] = field(default_factory=dict)
    fades: dict[int, FadeStrip] = field(default_factory=dict)
    lacks_strips: bool = False
    average: str = ""
    latent_size: int = 0
    alpha_lines: list[Curve] | None = None
    moving_settings: dict[str, Curve] = field(default_factory=dict)


def draw_run(
    run: RunRecord,
    say: Say,
    plugins: Sequence[Any] = (),
    seed: int = 0,
    beginnings: bool = True,
    strips: bool = True,
) -> RunPictures:
    """Draw images from the checkpoints that were kept, those of the trunk included: nothing that is not shown.

    Args:
        run: The run.
        say: Function that is given a sentence about what could not be drawn; everything else is drawn.
        plugins: Plugins to use instead of the plugin files that the run used.
        seed: Seed of the latents.
        beginnings: Whether images right after each growth are drawn, which only a film shows.
        strips: Whether strips through fades are drawn.
    """
    pictures = RunPictures(lacks_strips=not strips)
    chain = list(run.lineage())
    try:
        built = [prepare_run(ancestor.folder, plugins, needs_data=False)[0] for ancestor in chain]
        trained = [(prepared.resolve_schedule(), prepared.hooks()) for prepared in built]
        pictures.alpha_lines = _try_alpha_lines(run, trained, say)
        pictures.moving_settings = draw_moving_settings(run, built[-1], trained[-1][0])
        strip_alphas = _strip_alphas(run, pictures.alpha_lines)

        # Each checkpoint is restored by the run that wrote it.
        restores = []
        for prepared, (schedule, hooks) in zip(built, trained, strict=True):
            own = prepared.identify_networks(schedule)
            restores.append(partial(restore_generator, prepared.built.experiment, schedule, hooks, own=own))
        with fork_random_numbers():
            for place, saved in _iterate_checkpoints(chain, say):
                _draw_checkpoint(pictures, restores[place], saved, strip_alphas, seed)
                if beginnings and saved.stage_over and saved.stage < run.stages[-1].index:
                    grow = _restore_of_next_stage(chain, restores, place, saved)
                    _draw_growth(pictures, grow(saved, grown=True), saved.stage + 1, seed)
    except (UserError, TrainingError) as error:
        say(f"{run.folder}: not all pictures can be drawn: {error}")
    return pictures


def draw_moving_settings(run: RunRecord, prepared: Prepared, schedule: Schedule) -> dict[str, Curve]:
    """Return the values of the settings that move, by name: those of the run itself, from where it began.

    Args:
        run: The run.
        prepared: Its experiment.
        schedule: Its stages.
    """
    # Without settings that move there is nothing to draw.
    components = {path: component for path, (_, component) in prepared.built.components.items()}
    settings = list_moving_settings(components)
    if not settings:
        return {}

    # A branch has values of its own from where it left its trunk.
    began = (run.about.get("from") or {}).get("images", 0)
    # A stage without a budget begins where the next one does.
    starts: list[int] = []
    for stage in run.stages:
        starts += [stage.start] * (stage.index + 1 - len(starts))
    curves: dict[str, Curve] = {name: [] for name in settings}
    for stage in run.stages:
        step = max(1, (stage.end - stage.start) // POINTS)
        for clock in (*range(max(began, stage.start), stage.end, step), stage.end):
            position = schedule.at(clock, starts[: stage.index + 1])
            for name, setting in settings.items():
                if clock >= began:
                    curves[name].append((clock, value_at(setting, position)))
    return curves


def _iterate_checkpoints(chain: Sequence[RunRecord], say: Say) -> Iterator[tuple[int, Snapshot]]:
    """Yield the checkpoints of a lineage, the last first, with their run's place in it.

    Those of each run are those up to where the next run began.
    """
    for place, ancestor in reversed(list(enumerate(chain))):
        limit = find_branch_clock(chain, place)
        for saved in RunDirectory(ancestor.folder).checkpoints(say=say).load_kept(newest_first=True):
            if saved.images <= limit:
                yield place, saved


def find_branch_clock(chain: Sequence[RunRecord], place: int) -> float:
    """Return the clock at which the next run of a lineage began; infinity for the last run."""
    if place + 1 == len(chain):
        return math.inf
    return float(chain[place + 1].about["from"]["images"])


def _restore_of_next_stage(
    chain: Sequence[RunRecord], restores: Sequence[Restore], place: int, saved: Snapshot
) -> Restore:
    """Return how to restore a checkpoint of a stage's end as the run that trained the next stage did."""
    if saved.images == find_branch_clock(chain, place):
        return restores[place + 1]
    return restores[place]


def _try_alpha_lines(run: RunRecord, trained: Trained, say: Say) -> list[Curve] | None:
    try:
        return draw_alpha_lines(run, trained)
    except (UserError, TrainingError) as error:
        say(f"{run.folder}: alpha is drawn at ticks only: {error}")
        return None


def _strip_alphas(run: RunRecord, lines: Sequence[Curve] | None) -> dict[int, list[float]]:
    """Return the alphas of each stage's strip, by stage; none where the switch cannot be asked."""
    if lines is None:
        return {}
    return {stage.index: choose_alphas(line) for stage, line in zip(run.stages, lines, strict=True)}


def choose_alphas(line: Curve) -> list[float]:
    """Return those alphas of a fade that are nearest to `ALPHAS`, rising and each once.

    Args:
        line: Alpha by clock, as the switch gives it. To it comes 1, with which each fade ends.
    """
    taken = sorted({alpha for _, alpha in line} | {1.0})
    nearest = {min(taken, key=lambda alpha: abs(alpha - wanted)) for wanted in ALPHAS}
    return sorted(nearest)


def _draw_checkpoint(
    pictures: RunPictures,
    restore: Restore,
    saved: Snapshot,
    strip_alphas: dict[int, list[float]],
    seed: int,
) -> None:
    """Draw what one checkpoint shows, as far as no later one of its stage has shown it."""
    stage = saved.stage
    has_end = stage in pictures.ends
    may_have_strip = not (saved.stage_over or stage in pictures.fades or pictures.lacks_strips)
    if has_end and not may_have_strip:
        return
    generator = restore(saved)
    if not pictures.average:
        pictures.average = next(iter(saved.averages))
        pictures.latent_size = generator.latent_size

    # A strip needs an old path.
    if may_have_strip and generator.alpha is not None:
        alphas = strip_alphas.get(stage, list(ALPHAS))
        pictures.fades[stage] = draw_strip(generator, alphas, seed)
    if not has_end:
        pictures.ends[stage], pictures.sizes[stage] = draw_reduced(generator, GRID, seed)
        pictures.clocks[stage] = saved.images
        pictures.alphas[stage] = _alpha_of(generator)


def _draw_growth(pictures: RunPictures, generator: TrainedGenerator, stage: int, seed: int) -> None:
    """Draw what a generator shows right after it has grown to a stage."""
    images, pictures.sizes[stage] = draw_reduced(generator, GRID, seed)
    pictures.begins[stage] = (_alpha_of(generator), images)


def _alpha_of(generator: TrainedGenerator) -> float:
    return 1.0 if generator.alpha is None else float(generator.alpha)


def draw_strip(generator: TrainedGenerator, alphas: list[float], seed: int) -> FadeStrip:
    """Draw images of the first `STRIP` latents at each alpha."""
    return FadeStrip(alphas, [draw_reduced(generator, STRIP, seed, alpha)[0] for alpha in alphas])


def draw_reduced(
    generator: TrainedGenerator, first: int, seed: int, alpha: float | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Draw images of the first of `GRID` latents, and reduce those whose longer side is above `LARGEST` to it.

    Returns:
        The images, and the height and width at which they were drawn.
    """
    images = draw(generator, GRID, seed, alpha=alpha, first=first)
    height, width = images.shape[1:3]
    longer = max(height, width)
    if longer > LARGEST:
        shown = (max(1, round(height * LARGEST / longer)), max(1, round(width * LARGEST / longer)))
        images = np.stack([reduce_image(image, shown) for image in images])
    # Channels side by side make the picture wider than the image.
    return images, generator.size
