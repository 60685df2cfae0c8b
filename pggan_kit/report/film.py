"""One animation of two runs side by side: the same latents, slow across the switch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pggan_kit.pictures import gif
from pggan_kit.pictures.frames import Caption, draw_frame, fitted
from pggan_kit.pictures.grid import BACKGROUND, untiled
from pggan_kit.report.pictures import ALPHAS, Pictures
from pggan_kit.report.records import RunRecord, StageRecord
from pggan_kit.schedule import FADE, STABLE

COLUMNS = 3
PANEL = 264
"""Each run's half is about this wide, in pixels."""

MOST_FRAMES = 90
USUAL_MS, FADING_MS, SWITCH_MS, LAST_MS = 180, 500, 1600, 2500

SAME = ("train.seed", "train.latent_size", "observers.Samples.count", "observers.Samples.fresh")
"""What two runs must have in common for their `samples/` to show the same latents."""


class Still(NamedTuple):
    """What a run's generator drew at one moment.

    Attributes:
        clock: in images.
        grown: 0 at a tick, 1 for the moment right after a growth at the same clock.
        alpha: of the generator.
        images: uint8 (N, h, w, C).
    """

    clock: int
    grown: int
    alpha: float
    images: np.ndarray


@dataclass(frozen=True)
class Film:
    """The animation.

    Attributes:
        content: a GIF.
        source: `samples` or `checkpoints`: what it was made from.
        frames: how many.
    """

    content: bytes
    source: str
    frames: int


def side_by_side(runs: Sequence[RunRecord], pictures: Sequence[Pictures]) -> Film | None:
    """The film of two runs; None where they have no latents or sizes in common.

    Made of the grids in `samples/`, which show each tick and the moments after growth, where both have them for the
    same latents; else of checkpoints: then a fade is drawn with the weights that it ended with.
    """
    source = "samples"
    stills = [from_samples(run) for run in runs]
    settings = [[run.setting(name) for name in SAME] for run in runs]
    if not all(stills) or settings[0] != settings[1] or settings[0][3]:
        source = "checkpoints"
        stills = [from_checkpoints(*pair) for pair in zip(runs, pictures, strict=True)]
        if not all(stills) or len({drawn.latent_size for drawn in pictures}) > 1:
            return None
    every = [still.images.shape[1:] for own in stills for still in own]
    cell = fitted(sorted({shape[:2] for shape in every}), PANEL // COLUMNS)
    if len({shape[2] for shape in every}) > 1 or any(cell[0] % h and h < cell[0] for h, _, _ in every):
        return None
    moments = chosen_moments(stills, runs)
    total = max(run.rows[-1]["images"] for run in runs)
    frames, shown_ms = [], []
    for moment, milliseconds in moments:
        panels = [panel(run.name, latest(own, moment), cell, total) for run, own in zip(runs, stills, strict=True)]
        frames.append(gif.encode(joined(panels), moment[0]))
        shown_ms.append(milliseconds)
    return Film(gif.assemble(frames, shown_ms), source, len(frames))


def from_samples(run: RunRecord) -> list[Still]:
    """The grids that `observers.Samples` drew, those of the trunk included."""
    alphas = {(row["images"], int(row["Progress/size"])): float(row["Progress/alpha"]) for row in run.rows}
    starts = {stage.start: stage for stage in run.stages[1:]}
    stills: dict[tuple[int, int], Still] = {}
    for ancestor in run.lineage():
        for path in sorted((ancestor.folder / "samples").glob("*.png")):
            named = re.fullmatch(r"(\d+)-(\d+)x(\d+)\.png", path.name)
            if named is None:
                continue
            clock, height, width = map(int, named.groups())
            stage = starts.get(clock)
            grown = int(stage is not None and stage.height == height)
            alpha = _first_alpha(stage) if grown and stage else alphas.get((clock, height))
            images = _cells(path, height, width) if alpha is not None else None
            if alpha is not None and images is not None:
                stills[clock, grown] = Still(clock, grown, alpha, images[: COLUMNS * COLUMNS])
    return [stills[moment] for moment in sorted(stills)]


def _first_alpha(stage: StageRecord) -> float:
    return 1.0 if stage.fade_end is None else 0.0


def _cells(path: Path, height: int, width: int) -> np.ndarray | None:
    """The images of a grid; None where it is damaged or something else."""
    try:
        with Image.open(path) as picture:
            if picture.mode not in ("L", "RGB"):
                return None
            sheet = np.asarray(picture)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    return untiled(sheet.reshape(*sheet.shape[:2], -1), height, width)


def from_checkpoints(run: RunRecord, pictures: Pictures) -> list[Still]:
    """Ends and beginnings of stages, and fades with the weights of their ends."""
    stills = []
    for stage in run.stages:
        if stage.index in pictures.begins:
            stills.append(Still(stage.start, 1, *pictures.begins[stage.index]))
        strip = pictures.fades.get(stage.index)
        if strip is not None and stage.fade_end is not None:
            for alpha, images in list(zip(ALPHAS, strip, strict=True))[1:]:
                clock = round(stage.start + alpha * (stage.fade_end - stage.start))
                stills.append(Still(clock, 0, alpha, images))
        if stage.index in pictures.ends:
            clock, alpha = pictures.clocks[stage.index], pictures.alphas[stage.index]
            stills.append(Still(clock, 0, alpha, pictures.ends[stage.index]))
    few = min((len(still.images) for still in stills), default=0)
    shown = (still._replace(images=still.images[: min(few, COLUMNS * COLUMNS)]) for still in stills)
    return sorted(shown, key=lambda still: still[:2])


def chosen_moments(stills: Sequence[Sequence[Still]], runs: Sequence[RunRecord]) -> list[tuple[tuple[int, int], int]]:
    """Moments (clock, grown) at which either run has something new, and for how many milliseconds each is shown.

    Beyond `MOST_FRAMES`, moments outside fades and switches are left out, evenly.
    """
    moments = sorted({still[:2] for own in stills for still in own})
    switches = {stage.start for run in runs for stage in run.stages[1:]}
    fades = [(s.start, s.fade_end) for run in runs for s in run.stages if s.fade_end is not None]

    def milliseconds(moment: tuple[int, int]) -> int:
        if moment[0] in switches:
            return SWITCH_MS
        return FADING_MS if any(start <= moment[0] <= end for start, end in fades) else USUAL_MS

    timed = [(moment, milliseconds(moment)) for moment in moments]
    usual = [item for item in timed[:-1] if item[1] == USUAL_MS]
    room = max(1, MOST_FRAMES - (len(timed) - len(usual)))
    if len(usual) > room:
        kept = {usual[i * len(usual) // room][0] for i in range(room)}
        timed = [item for item in timed[:-1] if item[1] != USUAL_MS or item[0] in kept] + timed[-1:]
    return [*timed[:-1], (timed[-1][0], LAST_MS)]


def latest(stills: Sequence[Still], moment: tuple[int, int]) -> Still:
    """The last still at or before a moment; the first where there is none."""
    before = [still for still in stills if still[:2] <= moment]
    return before[-1] if before else stills[0]


def panel(name: str, still: Still, cell: tuple[int, int], total: int) -> Image.Image:
    """One run's half, mode `L` or `RGB`, with its name above. The clock is the still's own."""
    height, width = still.images.shape[1:3]
    phase = FADE if still.alpha < 1 else STABLE
    caption = Caption(f"{height}x{width}", phase, still.alpha, still.clock, total)
    frame = draw_frame(still.images, COLUMNS, cell, caption)
    frame = frame.convert("RGB") if frame.mode == "P" else frame
    font = ImageFont.load_default(16)
    title = Image.new(frame.mode, (frame.width, 26), _gray(frame.mode, BACKGROUND))
    shown = name if font.getlength(name) <= frame.width - 16 else f"...{name[-24:]}"
    ImageDraw.Draw(title).text((frame.width // 2, 14), shown, _gray(frame.mode, 255), font, anchor="mm")
    whole = Image.new(frame.mode, (frame.width, frame.height + title.height))
    whole.paste(title, (0, 0))
    whole.paste(frame, (0, title.height))
    return whole


def joined(panels: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size beside each other, mode `L` or `P`."""
    gap = 6
    mode, (width, height) = panels[0].mode, panels[0].size
    whole = Image.new(mode, (len(panels) * (width + gap) - gap, height), _gray(mode, 255))
    for place, picture in enumerate(panels):
        whole.paste(picture, (place * (width + gap), 0))
    return whole if mode == "L" else whole.quantize(256)


def _gray(mode: str, level: int) -> int | tuple[int, int, int]:
    return level if mode == "L" else (level, level, level)
