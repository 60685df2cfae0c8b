"""An animation of the whole run: how the images of the same latents sharpen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pggan_kit import (
    ConfigError,
    Interval,
    Run,
    Stage,
    Tick,
    TrainState,
    check_at_least,
    check_between,
    check_interval,
    hookimpl,
    resolve_interval,
    write_atomically,
)
from pggan_kit.pictures import (
    Caption,
    Frame,
    assemble_gif,
    choose_cell_size,
    disassemble_gif,
    draw_frame,
    encode_frame,
)
from pggan_plugins.observers.phase import name_phase
from pggan_plugins.observers.sample_grid import choose_latents, require_interval

CELL_SIDE = 128
"""Side of an image in a film, at most, about."""

MOST_FRAMES = 1_000
"""Maximum number of frames that `every` may ask for: the file is written again for each of them."""


class Growth:
    """The file `growth.gif` in the run's directory, which grows with the run: the averaged generator's images of the
    same latents, a frame from time to time, captioned with the stage's size, the phase, alpha and the clock.

    All frames have the size that the last stage needs; smaller images are enlarged, each pixel to a square, and images
    too large for their cell are reduced by averaging. Colour frames have 240 colours of their own. Where a run is
    resumed with other settings, under which frames have another size, the film so far stays as
    `growth-until-12800.gif`, named by the clock of its last frame.

    Args:
        count: The number of latents.
        frame_ms: The duration of each frame, in milliseconds.
        hold_ms: The duration of the last frame, in milliseconds.
        fresh: Whether each frame shows new latents instead of the same ones.
        every: Images between two frames, at ticks; may be per stage. `'phase'` for the ends of fades and stages alone,
            which have one in any case, as have the ticks before the first whole one. None for every hundredth of the
            run, so that there are little more than a hundred.

    Raises:
        ValueError: `count` below 1, `frame_ms` or `hold_ms` below 20 (browsers slow such animations down) or above
            60000, or `every` is no interval or makes more than 1,000 frames.
    """

    critical = False

    def __init__(
        self,
        count: int = 16,
        frame_ms: int = 200,
        hold_ms: int = 2000,
        fresh: bool = False,
        every: Interval = None,
    ) -> None:
        check_at_least("count", count, 1)
        check_interval("every", every)
        check_between("frame_ms", frame_ms, 20, 60_000)
        check_between("hold_ms", hold_ms, 20, 60_000)

        # Which frames are drawn, and for how long each is shown.
        self.count = count
        self.frame_ms = frame_ms
        self.hold_ms = hold_ms
        self.fresh = fresh
        self.every = every
        self._frames: list[Frame] = []
        self._unwritten: list[Frame] = []

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Read the frames of a resumed run, except those drawn after its checkpoint: they will be drawn again.

        Raises:
            ConfigError: `every` makes too many frames, or has no value for the first stage.
        """
        require_interval(run, "observers.Growth.every", self.every)
        self._require_few_frames(run)
        self._frames = []
        self._unwritten = []
        self._size = self._measure_frame(run)
        file = run.directory / "growth.gif"
        if not run.resumed or not file.is_file():
            return
        frames = disassemble_gif(file.read_bytes())
        if any(frame.size != self._size for frame in frames):
            aside = file.with_name(f"growth-until-{frames[-1].images}.gif")
            file.replace(aside)
            run.files.warn(
                "growth.gif has frames of another size than observers.Growth.count, pictures.channels and the stages "
                f"give now: it stays as {aside.name}, and a new film begins"
            )
            return
        self._frames = [frame for frame in frames if frame.images <= run.state.images]

    def _measure_frame(self, run: Run) -> tuple[int, int]:
        """Return the width and height of each frame."""
        panels = run.experiment.pictures.count_panels(run.state.stage.image_channels)
        columns, (height, width) = self._lay_out(run, panels)
        blank = np.zeros((self.count, height, panels * width, 1), np.uint8)
        return draw_frame(blank, columns, (height, width), Caption("", "", 1.0, 0, 0)).size

    def _lay_out(self, run: Run, panels: int) -> tuple[int, tuple[int, int]]:
        """Return the number of images in a row, and the (height, width) of the cell of each of an image's panels."""
        # Channels side by side leave room for fewer images in a row.
        columns = math.ceil(math.sqrt(self.count / panels))
        return columns, choose_cell_size(run.schedule, columns * panels)

    def _require_few_frames(self, run: Run) -> None:
        """Check that the film of the schedule is no longer than a file can be that is written again for each frame."""
        frames = 0
        starts = run.schedule.planned_starts()
        for stage, start in zip(run.schedule.stages, starts, strict=True):
            interval = resolve_interval(self.every, stage, run.schedule.total)
            if interval is not None:
                # Nothing is drawn between two ticks.
                images = run.schedule.end(starts[: stage.index + 1]) - start
                frames += images // max(interval, run.experiment.tick)
        if frames > MOST_FRAMES:
            raise ConfigError(
                f"observers.Growth.every makes a film of {frames} frames, and the most are {MOST_FRAMES}: raise it, or "
                "bind it to None"
            )

    @hookimpl
    def after_tick(self, run: Run, stage: Stage, state: TrainState, tick: Tick) -> None:
        """Add a frame where one is due, and replace the file."""
        if not (tick.is_early or tick.is_due(self.every)):
            return
        latents = choose_latents(run, self.count, self.fresh)
        pixels = run.show(run.generate(latents, run.fixed_labels(self.count)))
        columns, cell = self._lay_out(run, pixels.shape[2] // stage.width)
        caption = Caption(stage.size, name_phase(state), run.alpha["generator"], state.images, run.schedule.total)
        picture = draw_frame(pixels, columns, cell, caption)

        frame = encode_frame(picture, state.images)
        self._unwritten.append(frame)
        self._frames.append(frame)
        durations = [self.frame_ms] * (len(self._frames) - 1) + [self.hold_ms]
        write_atomically(run.directory / "growth.gif", assemble_gif(self._frames, durations))
        self._unwritten = []

    def estimate_bytes(self, ticks: Sequence[Tick]) -> tuple[int, int]:
        """Return the bytes that the file takes all times that it is written, and those of the last time.

        About one for each pixel of an image at its own size, or at that of its cell.
        """
        written = 0
        size = 0
        for tick in ticks:
            if tick.is_early or tick.is_due(self.every):
                stage = tick.stage
                size += self.count * min(stage.height, CELL_SIDE) * min(stage.width, CELL_SIDE)
                written += size
        return written, size

    @hookimpl
    def save_state(self) -> dict[str, Any]:
        """Return the frames that are not in the file: those of ticks at which it could not be written."""
        frames = [
            (frame.images, torch.frombuffer(bytearray(frame.data), dtype=torch.uint8)) for frame in self._unwritten
        ]
        return {"unwritten": frames}

    @hookimpl
    def load_state(self, run: Run, saved: Mapping[str, Any]) -> None:
        """Add the frames that are not in the file of this run; a branch has its own."""
        if run.is_new_branch:
            return
        frames = [Frame(images, data.numpy().tobytes()) for images, data in saved["unwritten"]]
        self._unwritten = [frame for frame in frames if frame.size == self._size]
        known = {frame.images for frame in self._frames}
        self._frames += [frame for frame in self._unwritten if frame.images not in known]
