"""Curves of the fakes' and reals' power over the spatial frequency, at the end of each stage."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pggan_kit import (
    ConfigError,
    Run,
    Stage,
    TrainState,
    check_at_least,
    hold_in_tensor,
    hookimpl,
    write_atomically,
)
from pggan_kit.components import ImageMetric
from pggan_plugins.observers.later_files import remove_later_files

BATCH = 50
"""Number of images that are in memory at once."""

WIDTH = 480
HEIGHT = 320
MARGIN = 48
"""Pixels of the figure, and of the margin that has the labels."""

COLOURS = {"real": "#1f77b4", "fake": "#d62728"}

GRID_DECIBELS = 10
"""Distance of the horizontal lines, in dB."""

LOWEST_POWER = 1e-6
"""Minimum power that is drawn: rounding to 8 bits leaves about five times as much."""


class Spectra:
    """The radial power spectra of fakes and reals at the end of each stage, in the folder `spectra` of the run's
    directory: `000012800-14x14.png` shows the curves, and the .json beside it has their numbers, `real` and `fake`, as
    powers in ring 0, 1, 2, ... of the spectrum. What a generator's upsampling leaves behind shows at the right end.

    Fakes are the averaged generator's images of fixed latents, rounded to 8 bits as reals are.

    Args:
        spectrum: The metric that describes images by their spectra: `metrics.RadialSpectrum`.
        count: The number of fakes, and of reals, over which curves are averaged.

    Raises:
        ValueError: `count` below 1.
    """

    critical = False

    def __init__(self, spectrum: ImageMetric, count: int = 1000) -> None:
        check_at_least("count", count, 1, whole=True)
        self.spectrum = spectrum
        self.count = count

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Make the folder; remove curves that were drawn after the checkpoint of a resumed run."""
        folder = run.directory / "spectra"
        folder.mkdir(exist_ok=True)
        remove_later_files(folder, run.state.images)

    @hookimpl
    def after_stage(self, run: Run, stage: Stage, state: TrainState) -> None:
        """Measure and draw the stage's curves.

        Raises:
            ConfigError: A metric that does not describe images by spectra.
        """
        if run.data is None:
            return
        curves = {}
        for name, batches in (("real", self._read_reals(run.data, stage)), ("fake", self._generate_fakes(run))):
            curve = self._average_spectra(batches)
            if curve is None:  # not defined at this size
                return
            curves[name] = curve

        stem = run.directory / "spectra" / f"{state.images:09d}-{stage.size}"
        write_atomically(Path(f"{stem}.json"), json.dumps(curves, allow_nan=False).encode())
        picture = io.BytesIO()
        draw_curves(curves, min(stage.height, stage.width)).save(picture, "PNG")
        write_atomically(Path(f"{stem}.png"), picture.getvalue())

    def _read_reals(self, data: Any, stage: Stage) -> Iterator[Tensor]:
        """Yield batches of reals (N, C, h, w) in [-1, 1]."""
        images = data.level((stage.height, stage.width)).images
        rows = data.draw_order()[: self.count]
        for start in range(0, len(rows), BATCH):
            yield data.values.to_images(hold_in_tensor(images[rows[start : start + BATCH]]))

    def _generate_fakes(self, run: Run) -> Iterator[Tensor]:
        """Yield batches of fakes (N, C, h, w) in [-1, 1], rounded as the data are."""
        latents = run.fixed_latents(self.count)
        labels = run.fixed_labels(self.count)
        for start in range(0, self.count, BATCH):
            batch_labels = None if labels is None else labels[start : start + BATCH]
            yield run.values.round_images(run.generate(latents[start : start + BATCH], batch_labels))

    def _average_spectra(self, batches: Iterator[Tensor]) -> list[float] | None:
        """Return the mean description of images (N, C, h, w) in [-1, 1]; None where there is none."""
        descriptions = []
        for images in batches:
            description = self.spectrum.describe(images)
            if description is None:
                return None
            if description.dim() != 2 or not description.is_floating_point() or (description < 0).any():
                raise ConfigError(
                    "observers.Spectra.spectrum must describe images by powers: take metrics.RadialSpectrum"
                )
            descriptions.append(description.double())
        curve: list[float] = torch.cat(descriptions).mean(0).tolist()
        return curve


def draw_curves(curves: dict[str, list[float]], side: int) -> Image.Image:
    """Draw spectra in dB over the frequency.

    Args:
        curves: Power in each ring, by name; ring 0 is left out.
        side: Pixels of the images' shorter side: ring k has k / side cycles a pixel.
    """
    levels = {name: [10 * math.log10(max(power, LOWEST_POWER)) for power in curve] for name, curve in curves.items()}
    values = [level for curve in levels.values() for level in curve[1:]]
    low = GRID_DECIBELS * math.floor(min(values) / GRID_DECIBELS)
    high = GRID_DECIBELS * (math.floor(max(values) / GRID_DECIBELS) + 1)
    last = len(curves["real"]) - 1

    def place(ring: float, level: float) -> tuple[float, float]:
        x = MARGIN + (WIDTH - 2 * MARGIN) * ring / last
        return x, HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (level - low) / (high - low)

    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default()

    # The axes: lines at each 10 dB, the highest frequency along an axis, and the highest of all.
    for level in range(low, high + 1, GRID_DECIBELS):
        draw.line([place(0, level), place(last, level)], fill="#dddddd")
        draw.text((4, place(0, level)[1] - 6), f"{level} dB", fill="black", font=font)
    for ring in (side / 2, last):
        draw.line([place(ring, low), place(ring, high)], fill="#dddddd")
        draw.text((place(ring, low)[0] - 12, HEIGHT - MARGIN + 6), f"{ring / side:.2f}", fill="black", font=font)
    draw.text((WIDTH // 2 - 60, HEIGHT - 22), "cycles / pixel", fill="black", font=font)

    for number, (name, curve) in enumerate(levels.items()):
        _draw_line(draw, [place(ring, level) for ring, level in enumerate(curve) if ring], COLOURS[name])
        draw.text((WIDTH - 2 * MARGIN, 8 + 14 * number), name, fill=COLOURS[name], font=font)
    return picture


def _draw_line(draw: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]], colour: str) -> None:
    """Draw a line through points, and a dot at each."""
    draw.line(list(points), fill=colour, width=2)
    for x, y in points:
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
