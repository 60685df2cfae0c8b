"""One animation of the whole run: how the images of the same latents sharpen."""

from __future__ import annotations

import math

from pggan_kit import Run, Stage, TrainState, check_at_least, check_between, hookimpl, write_atomically
from pggan_kit.pictures import Caption, Frame, assemble, cell_size, disassemble, draw_frame, encode, to_uint8
from pggan_plugins.observers.grid import latents_of
from pggan_plugins.observers.shared import phase_shown


class Growth:
    """`growth.gif` in the run's directory, rewritten at each tick: the averaged generator's images of the same
    latents, one frame a tick, captioned with the stage's size, the phase, alpha and the clock.

    All frames have the size that the last stage needs; smaller images are enlarged, each pixel to a square, and images
    too large for their cell are reduced by averaging. Colour frames have 240 colours of their own.

    Args:
        count: how many latents.
        frame_ms: how long each frame is shown, in milliseconds.
        hold_ms: how long the last frame is shown.
        frames: the most frames; beyond them, those that stand closest together are thinned out.
        fresh: draw new latents for each frame instead of the same ones.

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
        for name, value in (("frame_ms", frame_ms), ("hold_ms", hold_ms)):
            check_between(name, value, 20, 60_000)
        self.count = count
        self.frame_ms = frame_ms
        self.hold_ms = hold_ms
        self.most = frames
        self.fresh = fresh
        self._frames: list[Frame] = []

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Read the frames of a resumed run back, but those drawn after its checkpoint: they come again."""
        file = run.directory / "growth.gif"
        found = disassemble(file.read_bytes()) if run.resumed and file.exists() else []
        self._frames = [frame for frame in found if frame.images <= run.state.images]

    @hookimpl
    def after_tick(self, run: Run, stage: Stage, state: TrainState) -> None:
        """Add a frame and put the new file in the old one's place."""
        latents = latents_of(run, self.count, self.fresh)
        images = to_uint8(run.generate(latents, run.fixed_labels(self.count)))
        caption = Caption(stage.size, phase_shown(state), run.alpha["generator"], state.images, run.schedule.total)
        columns = math.ceil(math.sqrt(self.count))
        picture = draw_frame(images, columns, cell_size(run.schedule, columns), caption)
        self._frames = thinned([*self._frames, encode(picture, state.images)], self.most)
        shown_ms = [self.frame_ms] * (len(self._frames) - 1) + [self.hold_ms]
        write_atomically(run.directory / "growth.gif", assemble(self._frames, shown_ms))


def thinned(frames: list[Frame], most: int) -> list[Frame]:
    """At most `most` frames, spread over the clock roughly evenly; the first and the last stay."""
    frames = list(frames)
    while len(frames) > most:
        _, closest = min((frames[i + 1].images - frames[i - 1].images, i) for i in range(1, len(frames) - 1))
        del frames[closest]
    return frames
