"""One animation of two runs side by side: the same latents, slow across the switch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pggan_kit.errors import DataError
from pggan_kit.pictures import gif
from pggan_kit.pictures.decoding import open_picture
from pggan_kit.pictures.frames import Caption, draw_frame, fit_size
from pggan_kit.pictures.grid import BACKGROUND, split_sheet
from pggan_kit.report.run_pictures import RunPictures
from pggan_kit.report.run_record import RunRecord, StageRecord
from pggan_kit.schedule import FADE, STABLE
from pggan_kit.system.activities import track_items

COLUMNS = 3
"""Columns, and rows, of images in each run's half."""

PANEL = 264
"""Width of each run's half, about, in pixels."""

GAP = 6
"""Pixels between the halves."""

MOST_FRAMES = 90
"""Maximum of frames, where switches and fades leave any to choose from."""

USUAL_MS = 180
"""Milliseconds that a frame outside fades is shown."""

FADING_MS = 500
"""Milliseconds that a frame within a fade is shown."""

SWITCH_MS = 1600
"""Milliseconds that a frame right before or after a growth is shown."""

LAST_MS = 2500
"""Milliseconds that the last frame is shown."""

SAMPLES_SETTINGS = ("train.seed", "train.latent_size", "observers.Samples.count")
"""Settings that two runs must have in common for their `samples/` to show the same latents."""

FRESH_SETTING = "observers.Samples.fresh"
"""Setting that must be off: with it, each grid shows other latents."""

Moment = tuple[int, int]
"""Clock and `grown` of a still."""


class Still(NamedTuple):
    """Images that a run's generator drew at one moment.

    Attributes:
        clock: The clock, in images.
        grown: 0 at a tick, 1 for the moment right after a growth at the same clock.
        alpha: Alpha of the generator.
        images: uint8 (N, h, w, C).
    """

    clock: int
    grown: int
    alpha: float
    images: np.ndarray

    @property
    def moment(self) -> Moment:
        """The clock, and whether it is before or after a growth."""
        return self.clock, self.grown


@dataclass(frozen=True)
class Film:
    """The animation.

    Attributes:
        content: A GIF.
        source: What it was made from: `samples` or `checkpoints`.
        frames: Number of frames.
    """

    content: bytes
    source: str
    frames: int


def make_film(runs: Sequence[RunRecord], pictures: Sequence[RunPictures]) -> Film | None:
    """Return the film of two runs; None where they have no latents or sizes in common.

    It is made of the grids in `samples/`, which show each tick and the moments after growth, where both have them for
    the same latents; otherwise of checkpoints: then a fade is drawn with the weights that it ended with.
    """
    source = "samples"
    stills = [read_samples(run) for run in track_items(runs, "reading samples/", len(runs), "runs")]
    if not all(stills) or not _samples_agree(runs):
        source = "checkpoints"
        stills = [take_checkpoints(run, drawn) for run, drawn in zip(runs, pictures, strict=True)]
        latent_sizes = {drawn.latent_size for drawn in pictures}
        if not all(stills) or len(latent_sizes) > 1:
            return None

    cell = _common_cell(still for own in stills for still in own)
    if cell is None:
        return None

    # A GIF has one frame for each moment at which either run has something new.
    total = max(run.rows[-1]["images"] for run in runs)
    frames = []
    shown_ms = []
    moments = choose_moments(stills, runs)
    for moment, milliseconds in track_items(moments, "drawing the film", len(moments), "frames"):
        panels = []
        for run, own in zip(runs, stills, strict=True):
            panels.append(draw_panel(run.name, find_latest(own, moment), cell, total))
        frames.append(gif.encode_frame(place_side_by_side(panels), moment[0]))
        shown_ms.append(milliseconds)
    return Film(gif.assemble_gif(frames, shown_ms), source, len(frames))


def _samples_agree(runs: Sequence[RunRecord]) -> bool:
    """Return whether the `samples/` of all runs show the same latents throughout."""
    for name in (*SAMPLES_SETTINGS, FRESH_SETTING):
        values = [run.setting(name) for run in runs]
        if any(value != values[0] for value in values):
            return False
    return not runs[0].setting(FRESH_SETTING)


def _common_cell(stills: Iterable[Still]) -> tuple[int, int] | None:
    """Return the size of an image on the screen that fits all stills; None where there is none, or channels differ."""
    shapes = [still.images.shape[1:] for still in stills]
    sizes = sorted({(height, width) for height, width, _ in shapes})
    channels = {shape[2] for shape in shapes}
    if len(channels) > 1:
        return None
    cell = fit_size(sizes, PANEL // COLUMNS)
    for height, _ in sizes:
        if height < cell[0] and cell[0] % height:
            return None
    return cell


def read_samples(run: RunRecord) -> list[Still]:
    """Return the grids that `observers.Samples` drew, those of the trunk included."""
    alphas = {(row["images"], int(row["Progress/size"])): float(row["Progress/alpha"]) for row in run.rows}
    starts = {stage.start: stage for stage in run.stages[1:]}

    stills: dict[Moment, Still] = {}
    for ancestor in run.lineage():
        for path in sorted((ancestor.folder / "samples").glob("*.png")):
            name = re.fullmatch(r"(\d+)-(\d+)x(\d+)\.png", path.name)
            if name is None:
                continue
            clock, height, width = map(int, name.groups())

            # At the clock of a growth there are two grids: the larger one was drawn right after it.
            stage = starts.get(clock)
            if stage is not None and stage.height == height:
                grown = 1
                alpha: float | None = _first_alpha(stage)
            else:
                grown = 0
                alpha = alphas.get((clock, height))
            if alpha is None:
                continue
            images = _read_grid(path, height, width)
            if images is not None:
                stills[clock, grown] = Still(clock, grown, alpha, images[: COLUMNS * COLUMNS])
    return [stills[moment] for moment in sorted(stills)]


def _first_alpha(stage: StageRecord) -> float:
    return 1.0 if stage.fade_end is None else 0.0


def _read_grid(path: Path, height: int, width: int) -> np.ndarray | None:
    """Return the images of a grid; None where the file is damaged or something else."""
    try:
        with open_picture(path, formats=("PNG",)) as picture:
            if picture.mode not in ("L", "RGB"):
                return None
            sheet = np.asarray(picture)
    except DataError:
        return None
    return split_sheet(sheet.reshape(*sheet.shape[:2], -1), height, width)


def take_checkpoints(run: RunRecord, pictures: RunPictures) -> list[Still]:
    """Return the ends and beginnings of stages, and fades with the weights of their ends."""
    stills = []
    for stage in run.stages:
        if stage.index in pictures.begins:
            alpha, images = pictures.begins[stage.index]
            stills.append(Still(stage.start, 1, alpha, images))

        # The beginning shows the strip's first alpha already.
        strip = pictures.fades.get(stage.index)
        if strip is not None and stage.fade_end is not None:
            for alpha, images in list(zip(strip.alphas, strip.images, strict=True))[1:]:
                clock = round(stage.start + alpha * (stage.fade_end - stage.start))
                stills.append(Still(clock, 0, alpha, images))

        if stage.index in pictures.ends:
            clock = pictures.clocks[stage.index]
            stills.append(Still(clock, 0, pictures.alphas[stage.index], pictures.ends[stage.index]))

    # All stills show as many latents as the smallest has.
    fewest = min((len(still.images) for still in stills), default=0)
    count = min(fewest, COLUMNS * COLUMNS)
    shown = [still._replace(images=still.images[:count]) for still in stills]
    return sorted(shown, key=lambda still: still.moment)


def choose_moments(stills: Sequence[Sequence[Still]], runs: Sequence[RunRecord]) -> list[tuple[Moment, int]]:
    """Return the moments at which either run has something new, and for how many milliseconds each is shown.

    Beyond `MOST_FRAMES`, moments outside fades and switches are left out, evenly.
    """
    moments = sorted({still.moment for own in stills for still in own})
    timed = [(moment, _milliseconds(moment[0], runs)) for moment in moments]

    # The last moment always stays.
    usual = [moment for moment, milliseconds in timed[:-1] if milliseconds == USUAL_MS]
    room = max(1, MOST_FRAMES - (len(timed) - len(usual)))
    if len(usual) > room:
        kept = {usual[i * len(usual) // room] for i in range(room)}
        left_out = set(usual) - kept
        timed = [(moment, milliseconds) for moment, milliseconds in timed if moment not in left_out]

    last_moment, _ = timed[-1]
    return [*timed[:-1], (last_moment, LAST_MS)]


def _milliseconds(clock: int, runs: Sequence[RunRecord]) -> int:
    """Return how long a frame at a clock is shown."""
    switches = {stage.start for run in runs for stage in run.stages[1:]}
    if clock in switches:
        return SWITCH_MS
    for run in runs:
        for stage in run.stages:
            if stage.fade_end is not None and stage.start <= clock <= stage.fade_end:
                return FADING_MS
    return USUAL_MS


def find_latest(stills: Sequence[Still], moment: Moment) -> Still:
    """Return the last still at or before a moment; the first still where there is none."""
    before = [still for still in stills if still.moment <= moment]
    return before[-1] if before else stills[0]


def draw_panel(name: str, still: Still, cell: tuple[int, int], total: int) -> Image.Image:
    """Draw one run's half, mode `L` or `RGB`, with its name above.

    Args:
        name: The run's name.
        still: The still, whose own clock is shown.
        cell: Height and width of each image, in pixels.
        total: Images at the end of the longer run.
    """
    height, width = still.images.shape[1:3]
    phase = FADE if still.alpha < 1 else STABLE
    caption = Caption(f"{height}x{width}", phase, still.alpha, still.clock, total)
    frame = draw_frame(still.images, COLUMNS, cell, caption)
    if frame.mode == "P":
        frame = frame.convert("RGB")

    # A name that is too long keeps its end, which tells runs apart.
    font = ImageFont.load_default(16)
    shown = name
    if font.getlength(name) > frame.width - 16:
        shown = f"...{name[-24:]}"
    title = Image.new(frame.mode, (frame.width, 26), _gray(frame.mode, BACKGROUND))
    ImageDraw.Draw(title).text((frame.width // 2, 14), shown, _gray(frame.mode, 255), font, anchor="mm")

    panel = Image.new(frame.mode, (frame.width, frame.height + title.height))
    panel.paste(title, (0, 0))
    panel.paste(frame, (0, title.height))
    return panel


def place_side_by_side(panels: Sequence[Image.Image]) -> Image.Image:
    """Return pictures of one size beside each other, mode `L` or `P`."""
    mode = panels[0].mode
    width, height = panels[0].size
    sheet = Image.new(mode, (len(panels) * (width + GAP) - GAP, height), _gray(mode, 255))
    for place, panel in enumerate(panels):
        sheet.paste(panel, (place * (width + GAP), 0))
    return sheet if mode == "L" else sheet.quantize(256)


def _gray(mode: str, level: int) -> int | tuple[int, int, int]:
    """Return a level of gray as a colour of the mode."""
    return level if mode == "L" else (level, level, level)
