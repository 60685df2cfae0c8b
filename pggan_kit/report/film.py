"""One animation of two runs side by side: the same latents, slow across the switch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pggan_kit.errors import DataError
from pggan_kit.pictures import gif
from pggan_kit.pictures.decoding import open_picture
from pggan_kit.pictures.frames import Caption, draw_frame, fit_size
from pggan_kit.pictures.grid import BACKGROUND, arrange_grid, crop_grid, measure_grid, split_sheet
from pggan_kit.report.run_pictures import RunPictures, find_branch_clock
from pggan_kit.report.run_record import RunRecord, StageRecord
from pggan_kit.schedule import FADE, STABLE
from pggan_kit.system.activities import track_items

MOST_IMAGES = 9
"""Maximum of images in each run's half."""

PANEL = 264
"""Width of each run's half, about, in pixels."""

GAP = 6
"""Pixels between the halves."""

MOST_FRAMES = 90
"""Maximum of frames."""

MOST_BYTES = 1_500_000
"""Maximum of a film's bytes, as far as it then still has `LEAST_FRAMES`: a page is to be mailed."""

LEAST_FRAMES = 20
"""Frames that a film keeps however large they are."""

FADING_SHARE = 0.6
"""Share of the frames that fades get, where they and the rest have too many."""

USUAL_MS = 180
"""Milliseconds that a frame outside fades is shown."""

FADING_MS = 500
"""Milliseconds that a frame within a fade is shown."""

SWITCH_MS = 1600
"""Milliseconds that a frame right before or after a growth is shown."""

LAST_MS = 2500
"""Milliseconds that the last frame is shown."""

COUNT_SETTING = "observers.Samples.count"
"""Setting that says how many latents a run's `samples/` show."""

SAMPLES_SETTINGS = ("train.seed", "train.latent_size", COUNT_SETTING)
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
        size: Height and width at which they were drawn.
    """

    clock: int
    grown: int
    alpha: float
    images: np.ndarray
    size: tuple[int, int]

    @property
    def moment(self) -> Moment:
        """The clock, and whether it is before or after a growth."""
        return self.clock, self.grown


class Sheet(NamedTuple):
    """The file of a grid in `samples/`, whose name has its clock and the size of its images."""

    clock: int
    height: int
    width: int
    path: Path


class Sample(NamedTuple):
    """A grid in `samples/`, which is read when its turn has come: those of a long run do not fit into memory.

    Attributes:
        clock, grown, alpha: See `Still`.
        path: The file.
        height, width: Size of each image, in pixels.
        panels: Number of channels that are shown side by side; 1 otherwise.
        numbers: Numbers of the latents in the grid, in its order: of large images it shows fewer.
        taken: Numbers of those that are read.
    """

    clock: int
    grown: int
    alpha: float
    path: Path
    height: int
    width: int
    panels: int
    numbers: tuple[int, ...]
    taken: tuple[int, ...]

    @property
    def moment(self) -> Moment:
        """The clock, and whether it is before or after a growth."""
        return self.clock, self.grown

    def read(self) -> Still | None:
        """Return the images that are taken; None where the file is damaged or something else."""
        images = _read_grid(self.path, self.height, self.width * self.panels)
        if images is None or len(images) != len(self.numbers):
            return None
        places = [self.numbers.index(number) for number in self.taken]
        return Still(self.clock, self.grown, self.alpha, images[places], (self.height, self.width))


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
    sources: Sequence[Sequence[Still | Sample]]
    if can_use_samples(runs):
        name = "samples"
        samples = [list_samples(run) for run in runs]
        taken = tuple(list_common_numbers(samples)[:MOST_IMAGES])
        sources = [[sample._replace(taken=taken) for sample in own] for own in samples]
    else:
        name = "checkpoints"
        sources = [take_checkpoints(run, drawn) for run, drawn in zip(runs, pictures, strict=True)]
        latent_sizes = {drawn.latent_size for drawn in pictures}
        if not all(sources) or len(latent_sizes) > 1:
            return None

    cell = _common_cell(sources)
    if cell is None:
        return None

    # A GIF has one frame for each moment at which either run has something new.
    total = max(run.rows[-1]["images"] for run in runs)
    moments = choose_moments({still.moment for own in sources for still in own}, runs)
    clocks = [moment for moment, _ in moments]
    shown = zip(*(iterate_stills(own, clocks) for own in sources), strict=True)
    encoded: dict[Moment, gif.Frame] = {}
    for moment, stills in track_items(zip(clocks, shown, strict=True), "drawing the film", len(clocks), "frames"):
        panels = [draw_panel(run.name, still, cell, total) for run, still in zip(runs, stills, strict=True)]
        encoded[moment] = gif.encode_frame(place_side_by_side(panels), moment[0])

    # Frames of large colour images are fewer.
    size = _count_bytes(encoded, moments)
    while size > MOST_BYTES and len(moments) > LEAST_FRAMES:
        most = max(LEAST_FRAMES, min(len(moments) - 1, len(moments) * MOST_BYTES // size))
        moments = choose_moments({moment for moment, _ in moments}, runs, most)
        size = _count_bytes(encoded, moments)
    frames = [encoded[moment] for moment, _ in moments]
    return Film(gif.assemble_gif(frames, [shown_ms for _, shown_ms in moments]), name, len(frames))


def _count_bytes(encoded: Mapping[Moment, gif.Frame], moments: Sequence[tuple[Moment, int]]) -> int:
    return sum(len(encoded[moment].data) for moment, _ in moments)


def can_use_samples(runs: Sequence[RunRecord]) -> bool:
    """Return whether the `samples/` of all runs can be read, and some latents are in all of them."""
    # A trunk without samples is no obstacle.
    records = [record for run in runs for record in run.lineage() if record.setting(COUNT_SETTING) is not None]
    for name in (*SAMPLES_SETTINGS, FRESH_SETTING):
        values = [record.setting(name) for record in (*runs, *records)]
        if any(value != values[0] for value in values):
            return False
    if any(run.setting(FRESH_SETTING) for run in runs):
        return False
    samples = [list_samples(run) for run in runs]
    if not list_common_numbers(samples):
        return False
    return all(any(sample.read() is not None for sample in own) for own in samples)


def list_common_numbers(samples: Sequence[Sequence[Sample]]) -> list[int]:
    """Return the rising numbers of the latents that are in all grids of all runs; none where a run has no grid."""
    if not all(samples):
        return []
    shown = {sample.numbers for own in samples for sample in own}
    return sorted(set.intersection(*map(set, shown)))


def iterate_stills(stills: Sequence[Still | Sample], moments: Sequence[Moment]) -> Iterator[Still]:
    """Yield for each moment the last still at or before it that can be read; where there is none, the next one.

    Args:
        stills: Stills or samples by rising moment, one of which at least can be read.
        moments: Rising moments.
    """
    place = 0
    current: Still | None = None
    for moment in moments:
        begin = place
        while place < len(stills) and stills[place].moment <= moment:
            place += 1

        # From the last back to the one that is shown already.
        for still in reversed(stills[begin:place]):
            read = still.read() if isinstance(still, Sample) else still
            if read is not None:
                current = read
                break
        while current is None:
            following = stills[place]
            current = following.read() if isinstance(following, Sample) else following
            place += 1
        yield current


def _common_cell(sources: Sequence[Sequence[Still | Sample]]) -> tuple[int, int] | None:
    """Return the size of an image on the screen that fits all stills; None where there is none, or channels differ."""
    sizes = set()
    channels = set()
    for own in sources:
        for still in own:
            if isinstance(still, Sample):
                sizes.add((still.height, still.width * still.panels))
            else:
                sizes.add(still.images.shape[1:3])
        # A run draws images of one mode, with as many channels side by side.
        first = next(iterate_stills(own, [own[0].moment]))
        _, shown_height, shown_width, shown_channels = first.images.shape
        height, width = first.size
        channels.add((shown_channels, round(shown_width * height / (shown_height * width))))
    if len(channels) > 1:
        return None
    cell = fit_size(sorted(sizes), PANEL // _count_columns(len(first.images)))
    for height, _ in sizes:
        if height < cell[0] and cell[0] % height:
            return None
    return cell


def _count_columns(images: int) -> int:
    """Return the number of columns of a run's half, which is about as high as it is wide."""
    return math.ceil(math.sqrt(images))


def list_samples(run: RunRecord) -> list[Sample]:
    """Return the grids that `observers.Samples` drew, those of the trunk up to the branch included, by rising moment.

    Grids whose arrangement is not known are left out, since nothing says which latents they show.
    """
    alphas = {(row["images"], int(row["Progress/size"])): float(row["Progress/alpha"]) for row in run.rows}
    starts = {stage.start: stage for stage in run.stages[1:]}

    samples: dict[Moment, Sample] = {}
    chain = list(run.lineage())
    for place, ancestor in enumerate(chain):
        limit = find_branch_clock(chain, place)
        panels = ancestor.count_panels()
        sheets = _list_sheets(ancestor)
        rows = _find_arrangement(ancestor, sheets, panels)
        if rows is None:
            continue
        for clock, height, width, path in sheets:
            # At the clock of a growth there are two grids: the larger one was drawn right after it.
            stage = starts.get(clock)
            if stage is not None and stage.height == height:
                grown = 1
                alpha: float | None = _first_alpha(stage)
            else:
                grown = 0
                alpha = alphas.get((clock, height))
            # What a trunk drew after the branch is not of this run.
            if alpha is None or (clock, grown) > (limit, 0):
                continue
            shown = crop_grid(rows, height, width * panels)
            numbers = tuple(number for row in shown for number in row)
            samples[clock, grown] = Sample(clock, grown, alpha, path, height, width, panels, numbers, numbers)
    return [samples[moment] for moment in sorted(samples)]


def _list_sheets(run: RunRecord) -> list[Sheet]:
    """Return the files of a run's own grids, by name."""
    sheets = []
    for path in sorted((run.folder / "samples").glob("*.png")):
        name = re.fullmatch(r"(\d+)-(\d+)x(\d+)\.png", path.name)
        if name is not None:
            clock, height, width = map(int, name.groups())
            sheets.append(Sheet(clock, height, width, path))
    return sheets


def _find_arrangement(run: RunRecord, sheets: Sequence[Sheet], panels: int) -> list[list[int]] | None:
    """Return the numbers of the latents in rows, before large images are cropped; None where no grid agrees with any.

    The rows of a conditional generator are classes, and only the grids tell whether it is one: the smallest best.
    """
    count = run.setting(COUNT_SETTING)
    if not isinstance(count, int):
        return None
    classes = run.about.get("data", {}).get("classes", 0)
    for sheet in sorted(sheets, key=lambda sheet: sheet.height):
        try:
            with open_picture(sheet.path, formats=("PNG",)) as picture:
                size = picture.size
        except DataError:
            continue
        width = sheet.width * panels
        for rows in (arrange_grid(count, 0), arrange_grid(count, min(count, classes))):
            if size == measure_grid(crop_grid(rows, sheet.height, width), sheet.height, width):
                return rows
    return None


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
        if stage.index not in pictures.sizes:  # nothing was drawn
            continue
        size = pictures.sizes[stage.index]
        if stage.index in pictures.begins:
            alpha, images = pictures.begins[stage.index]
            stills.append(Still(stage.start, 1, alpha, images, size))

        # The beginning shows the strip's first alpha already.
        strip = pictures.fades.get(stage.index)
        if strip is not None and stage.fade_end is not None:
            for alpha, images in list(zip(strip.alphas, strip.images, strict=True))[1:]:
                clock = round(stage.start + alpha * (stage.fade_end - stage.start))
                stills.append(Still(clock, 0, alpha, images, size))

        if stage.index in pictures.ends:
            clock = pictures.clocks[stage.index]
            stills.append(Still(clock, 0, pictures.alphas[stage.index], pictures.ends[stage.index], size))

    # All stills show as many latents as the smallest has.
    fewest = min((len(still.images) for still in stills), default=0)
    count = min(fewest, MOST_IMAGES)
    shown = [still._replace(images=still.images[:count]) for still in stills]
    return sorted(shown, key=lambda still: still.moment)


def choose_moments(
    moments: Iterable[Moment], runs: Sequence[RunRecord], most: int = MOST_FRAMES
) -> list[tuple[Moment, int]]:
    """Return the moments that are shown, and for how many milliseconds each.

    Beyond `most` they are thinned evenly, switches last; fades and the rest share what switches leave. The last moment
    always stays.

    Args:
        moments: Moments at which either run has something new.
        runs: The runs.
        most: Maximum of moments.
    """
    # Moments by how long they are shown.
    *ordered, last = sorted(moments)
    by_duration: dict[int, list[Moment]] = {SWITCH_MS: [], FADING_MS: [], USUAL_MS: []}
    for moment in ordered:
        by_duration[_milliseconds(moment[0], runs)].append(moment)

    # Switches have the first claim on the room, and fades their share of the rest.
    switches = _thin(by_duration[SWITCH_MS], most - 1)
    room = most - 1 - len(switches)
    usual = by_duration[USUAL_MS]
    fading = _thin(by_duration[FADING_MS], max(round(FADING_SHARE * room), room - len(usual)))
    usual = _thin(usual, room - len(fading))

    # In the order of the clock, with the last one at the end.
    timed = [(moment, SWITCH_MS) for moment in switches]
    timed += [(moment, FADING_MS) for moment in fading]
    timed += [(moment, USUAL_MS) for moment in usual]
    return [*sorted(timed), (last, LAST_MS)]


def _thin(moments: Sequence[Moment], room: int) -> list[Moment]:
    """Return at most as many moments as there is room for, at even distances."""
    if len(moments) <= room:
        return list(moments)
    return [moments[place * len(moments) // room] for place in range(room)]


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


def draw_panel(name: str, still: Still, cell: tuple[int, int], total: int) -> Image.Image:
    """Draw one run's half, mode `L` or `RGB`, with its name above.

    Args:
        name: The run's name.
        still: The still, whose own clock is shown.
        cell: Height and width of each image, in pixels.
        total: Images at the end of the longer run.
    """
    height, width = still.size
    phase = FADE if still.alpha < 1 else STABLE
    caption = Caption(f"{height}x{width}", phase, still.alpha, still.clock, total)
    frame = draw_frame(still.images, _count_columns(len(still.images)), cell, caption)
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
