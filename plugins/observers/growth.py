"""An animation of the whole run: how the images of the same latents sharpen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from pggan_kit import Run, Stage, TrainState, check_at_least, check_between, hookimpl, write_atomically
from pggan_kit.pictures import (
    Caption,
    Frame,
    assemble_gif,
    choose_cell_size,
    disassemble_gif,
    draw_frame,
    encode_frame,
    to_uint8,
)
from pggan_plugins.observers.phase import name_phase
from pggan_plugins.observers.sample_grid import choose_latents


class Growth:
    """The file `growth.gif` in the run's directory, rewritten at each tick: the averaged generator's images of the same
    latents, one frame a tick, captioned with the stage's size, the phase, alpha and the clock.

    All frames have the size that the last stage needs; smaller images are enlarged, each pixel to a square, and images
    too large for their cell are reduced by averaging. Colour frames have 240 colours of their own.

    Args:
        count: The number of latents.
        frame_ms: The duration of each frame, in milliseconds.
        hold_ms: The duration of the last frame, in milliseconds.
        frames: The maximum number of frames; beyond it, those that are closest together on the clock are dropped.
        fresh: Whether each frame shows new latents instead of the same ones.

    Raises:
        ValueError: `count` below 1, `frame_ms` or `hold_ms` below 20 (browsers slow such animations down) or above
            60000, `frames` below 2.
    """

    critical = False

    def __init__(
        self, count: int = 16, frame_ms: int = 200, hold_ms: int = 2000, frames: int = 200, fresh: bool = False
    ) -> None:
        check_at_least("count", count, 1)
        check_at_least("frames", frames, 2)
        check_between("frame_ms", frame_ms, 20, 60_000)
        check_between("hold_ms", hold_ms, 20, 60_000)
        self.count = count
        self.frame_ms = frame_ms
        self.hold_ms = hold_ms
        self.max_frames = frames
        self.fresh = fresh
        self._frames: list[Frame] = []
        self._unwritten: list[Frame] = []

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Read the frames of a resumed run, except those drawn after its checkpoint: they will be drawn again."""
        self._frames = []
        self._unwritten = []
        file = run.directory / "growth.gif"
        if run.resumed and file.is_file():
            frames = disassemble_gif(file.read_bytes())
            self._frames = [frame for frame in frames if frame.images <= run.state.images]

    @hookimpl
    def after_tick(self, run: Run, stage: Stage, state: TrainState) -> None:
        """Add a frame, and replace the file."""
        latents = choose_latents(run, self.count, self.fresh)
        pixels = to_uint8(run.generate(latents, run.fixed_labels(self.count)))
        columns = math.ceil(math.sqrt(self.count))
        caption = Caption(stage.size, name_phase(state), run.alpha["generator"], state.images, run.schedule.total)
        picture = draw_frame(pixels, columns, choose_cell_size(run.schedule, columns), caption)

        frame = encode_frame(picture, state.images)
        self._unwritten.append(frame)
        self._frames = thin_frames([*self._frames, frame], self.max_frames)
        durations = [self.frame_ms] * (len(self._frames) - 1) + [self.hold_ms]
        write_atomically(run.directory / "growth.gif", assemble_gif(self._frames, durations))
        self._unwritten = []

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
        if not run.resumed:
            return
        self._unwritten = [Frame(images, data.numpy().tobytes()) for images, data in saved["unwritten"]]
        known = {frame.images for frame in self._frames}
        self._frames += [frame for frame in self._unwritten if frame.images not in known]


def thin_frames(frames: list[Frame], most: int) -> list[Frame]:
    """Return at most `most` frames, spread over the clock roughly evenly; the first and the last stay."""
    frames = list(frames)
    while len(frames) > most:
        _, closest = min((frames[i + 1].images - frames[i - 1].images, i) for i in range(1, len(frames) - 1))
        del frames[closest]
    return frames
