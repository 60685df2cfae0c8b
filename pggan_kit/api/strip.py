"""Draw the same latents at the end of every stage of a run, and through the fades between them, in one picture."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pggan_kit.api.average import choose_average
from pggan_kit.api.image_writers import GRID, write_picture
from pggan_kit.api.prepare import prepare_run
from pggan_kit.api.sample import draw_pictures, find_classes
from pggan_kit.errors import RunError, check_at_least, check_seed
from pggan_kit.pictures.encoding import make_picture
from pggan_kit.pictures.frames import BRIGHT, fill_cell, fit_size
from pggan_kit.pictures.grid import BACKGROUND, GAP, tile
from pggan_kit.runs.branches import list_lineage
from pggan_kit.runs.generators import TrainedGenerator, restore_generator
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.runs.targets import require_target_outside_runs
from pggan_kit.system.activities import report_activity
from pggan_kit.system.files import require_replaceable
from pggan_kit.system.seeding import fork_random_numbers, torch_generator

CELL_SIDE = 112
"""Maximum of the sides of a cell in pixels, about; larger images are reduced."""

TEXT_SIZE = 12
"""Height of the words above the columns, in pixels."""


class Column(NamedTuple):
    """The images of a strip at one place of the growth.

    Attributes:
        stage: Number of the stage, from 0.
        size: Size of the images, e.g. `14x14`.
        alpha: Share of the new path; None after the fade.
        clock: Clock of the weights, in images.
        images: uint8 (N, h, w, C).
    """

    stage: int
    size: str
    alpha: float | None
    clock: int
    images: np.ndarray


def write_strip(
    run_dir: Path,
    target: Path,
    *,
    count: int = 4,
    seed: int = 0,
    steps: int = 5,
    average: str | None = None,
    image_classes: Sequence[str | int] = (),
    truncation: float | None = None,
    plugins: Sequence[Any] = (),
) -> list[Column]:
    """Write a picture with a row for each latent, and columns for the ends of stages and for alphas of fades.

    Fades are those of which a checkpoint with the old path was kept: with the weights of its end, and alphas from 0,
    the old path alone, to 1.

    Args:
        run_dir: the run's folder. Stages that were trained by a run that it began from are drawn by that run.
        target: `.png`.
        count: number of latents.
        seed: the seed of the latents, those of `sample` with the same count and seed, and of the noise.
        steps: number of alphas of each fade; 0 for none.
        average: name of one of the run's averages; None for the first.
        image_classes: the classes that the latents have in turn; see `sample`.
        truncation: see `TrainedGenerator.forward`.
        plugins: see `load_generator`.

    Returns:
        The columns.

    Raises:
        SettingError: a number is out of range.
        RunError: the run cannot be read, nothing of it was kept, or the target cannot be written.
    """
    check_at_least("count", count, 1, whole=True)
    check_seed("seed", seed)
    check_at_least("steps", steps, 0, whole=True)

    # What can be refused is refused before anything is drawn.
    _require_target(target)
    _require_average_of_run(average)

    # Every kept checkpoint shows the same latents: a stage at its end, a fade at several alphas.
    columns: dict[tuple[int, float], Column] = {}
    with report_activity("drawing the ends of stages", unit="checkpoints") as activity:
        for saved, generator in iterate_generators(run_dir, plugins, average):
            latents = torch.randn(count, generator.latent_size, generator=torch_generator(seed, "sample"))
            labels = _choose_labels(image_classes, generator, count)
            for alpha in choose_alphas(saved, generator, steps):
                with fork_random_numbers(seed=seed):
                    images = draw_pictures(generator, latents, labels, alpha, truncation)
                column = Column(saved.stage, saved.size, alpha, saved.images, images)
                # A later checkpoint of the same fade or stage takes the place of an earlier one.
                columns[saved.stage, 2.0 if alpha is None else alpha] = column
            activity.advance()
    if not columns:
        raise RunError(f"{run_dir}: no checkpoint was kept from which a strip can be drawn")

    # In the order of the run: a fade, and then the rest of its stage.
    drawn = [columns[place] for place in sorted(columns)]
    write_picture(draw_strip(drawn), target)
    return drawn


def _require_target(target: Path) -> None:
    """Check that a strip can be written to a file.

    Raises:
        RunError: It has another suffix, is in a run, or is something else than a file.
    """
    if target.suffix != GRID:
        raise RunError(f"--out {target}: name a {GRID} file")
    require_target_outside_runs("--out", target)
    require_replaceable(target)


def _require_average_of_run(average: str | None) -> None:
    """Check that an average is one that every checkpoint of a run may have.

    Raises:
        RunError: It is a width or a file.
    """
    if average is not None and not isinstance(choose_average(average), str):
        raise RunError(
            f"--average {average}: a strip shows many checkpoints, and a width or a file is of one: give the name of "
            "one of train.averages"
        )


def _choose_labels(image_classes: Sequence[str | int], generator: TrainedGenerator, count: int) -> Tensor | None:
    """Return the labels (count,) of the rows, the classes in turn; None where the generator is unconditional."""
    classes = find_classes(image_classes, generator) or list(range(generator.classes))
    if not classes:
        return None
    return torch.tensor([classes[row % len(classes)] for row in range(count)])


def iterate_generators(
    run_dir: Path, plugins: Sequence[Any], average: str | None
) -> Iterator[tuple[Snapshot, TrainedGenerator]]:
    """Yield the kept checkpoints of a run and of those that it began from, oldest first, with their generators."""
    prepared, files = prepare_run(run_dir, plugins, needs_data=False)
    names = files.read_class_names()
    for ancestor, limit in list_lineage(files, warnings.warn):
        # Each checkpoint is restored by the run that wrote it.
        own = prepared
        if ancestor is not files:
            own, _ = prepare_run(ancestor.path, plugins, needs_data=False)
        schedule = own.resolve_schedule()
        identity = own.identify_networks(schedule)
        for saved in ancestor.checkpoints(say=warnings.warn).load_kept():
            if saved.images <= limit:
                experiment = own.built.experiment
                _require_average(saved, average)
                generator = restore_generator(experiment, schedule, own.hooks(), saved, identity, average=average)
                generator.class_names = names
                yield saved, generator


def _require_average(saved: Snapshot, average: str | None) -> None:
    """Check that a checkpoint has an average.

    Raises:
        RunError: It has not; the message names the option.
    """
    try:
        saved.select_average(average)
    except RunError as error:
        raise RunError(f"--average {average}: {error}") from None


def choose_alphas(saved: Snapshot, generator: TrainedGenerator, steps: int) -> list[float | None]:
    """Return the alphas at which a checkpoint is drawn; None for the end of its stage, or where its run is."""
    alphas: list[float | None] = []
    if saved.bridged["generator"]:
        alphas = np.linspace(0, 1, steps).tolist() if steps > 1 else [1.0] * steps
    if saved.stage_over or not saved.bridged["generator"]:
        alphas.append(None)
    return alphas


def draw_strip(columns: Sequence[Column], side: int = CELL_SIDE) -> Image.Image:
    """Draw columns side by side, all images at one size, under their sizes and alphas.

    Args:
        columns: The columns.
        side: Maximum of the sides of a cell in pixels, about; the words need 64.
    """
    sizes = [column.images.shape[1:3] for column in columns]
    cell = fit_size(sorted(sizes), side)
    count = len(columns[0].images)
    cells = [fill_cell(column.images[row], cell) for row in range(count) for column in columns]
    picture = make_picture(tile(np.stack(cells), len(columns)))

    # Two lines of words above the cells.
    line = round(1.4 * TEXT_SIZE)
    strip = Image.new(picture.mode, (picture.width, picture.height + 2 * line), (BACKGROUND,) * len(picture.getbands()))
    strip.paste(picture, (0, 2 * line))
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(TEXT_SIZE)
    colour = (BRIGHT,) * len(picture.getbands())
    for number, column in enumerate(columns):
        middle = GAP + number * (cell[1] + GAP) + cell[1] // 2
        draw.text((middle, line // 2 + 2), column.size, colour, font, anchor="mm")
        if column.alpha is not None:
            draw.text((middle, line + line // 2), f"alpha {column.alpha:.2f}", colour, font, anchor="mm")
    return strip
