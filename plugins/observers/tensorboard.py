"""Event files for TensorBoard."""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pggan_kit import Interval, Run, Tick, TrainState, check_at_least, check_interval, hookimpl
from pggan_plugins.observers.sample_grid import draw_grid, estimate_grids, require_interval
from pggan_plugins.observers.tick_log import TickLog, parse_hyperparameters

if TYPE_CHECKING:
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter

LAYOUT = {
    "Game": {"losses": ["Multiline", ["Loss/.*"]], "scores": ["Multiline", ["Scores/.*"]]},
    "Quality": {"metrics": ["Multiline", ["Metrics/.*"]], "diversity": ["Multiline", ["Progress/diversity"]]},
    "Growth": {
        "alpha": ["Multiline", ["Progress/alpha"]],
        "size": ["Multiline", ["Progress/size"]],
        "jump of images at switches": ["Multiline", ["Transition/rms/.*"]],
        "jump of features at switches": ["Multiline", ["Transition/features/.*"]],
    },
    "Cost": {
        "images per second": ["Multiline", ["Timing/images_per_second"]],
        "memory": ["Multiline", ["Resources/.*"]],
    },
}
"""Charts of the page *Custom Scalars*: by category and title, tags as regular expressions."""

EVENT_BYTES = 2_000
"""Bytes of a tick's numbers, about."""

EVENT_FILES = "events.out.tfevents.*"
"""What the writer calls its files: then follow the second, the host, the process and a count in that process."""

LONGEST_WAIT = 5.0
"""Seconds by which the clock of another machine may be ahead, and a new event file waits for it."""


class TensorBoard:
    """TensorBoard events in the run's directory. The x-axis is the clock, in images.

    They hold every number of each tick under its tag, and those of `transitions.jsonl` where
    `observers.TransitionShock` writes it; charts of related numbers; the operative config as text, again where a run is
    resumed with other settings; and the bindings of the config as hyperparameters, by whose metrics (without any,
    losses) runs are compared. Pictures are in the folder of `observers.Samples`; with a `count`, the events have them
    too.

    Args:
        count: The number of images in the grids `Samples` and, with the first tick of each stage, `Reals`, arranged as
            by `observers.Samples`; 0 draws none.
        every: Images between two grids; see `observers.Samples`.

    Raises:
        ValueError: `count` below 0, or `every` is no interval.
    """

    critical = False

    def __init__(self, count: int = 0, every: Interval = None) -> None:
        check_at_least("count", count, 0)
        check_interval("every", every)
        # Slow to import: only runs with this observer wait for it, and before they start.
        from torch.utils.tensorboard import SummaryWriter

        self.count = count
        self.every = every
        self._new_writer = SummaryWriter
        self._writer: SummaryWriter | None = None
        # The last tick in it is one that is wholly in the event files.
        self._ticks = TickLog()

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Log the operative config and the charts, unless the run has them.

        Raises:
            ConfigError: `every` has no value for the first stage.
        """
        require_interval(run, "observers.TensorBoard.every", self.every)
        self._ticks.begin(run)
        self._writer = None
        self._config = _read_text(run.directory / "operative.gin")
        self._logged_config = _compute_digest(self._config)
        event_files = list(run.directory.glob(EVENT_FILES))
        self._goes_on = run.resumed and run.state.images > 0 and bool(event_files)
        # A branch that is resumed may have none, although its clock has gone on.
        has_ticks = bool(run.stats)
        self._has_hyperparameters = self._goes_on and has_ticks
        if self._goes_on:
            return

        # A process that was killed before the first step may have logged some of it.
        for file in event_files:
            file.unlink()
        # Nothing is logged of a run that had no such observer until now.
        self._ticks.last_tick = 0
        self._writer = self._new_writer(str(run.directory))
        self._writer.add_custom_scalars(LAYOUT)
        self._add_config(self._writer, 0)
        self._writer.flush()

    @hookimpl
    def after_tick(self, run: Run, state: TrainState, stats: Mapping[str, float], tick: Tick) -> None:
        """Log all numbers, and a grid where one is due; and the numbers of ticks at which nothing could be written."""
        self._ticks.add(state.images, stats)
        # Rows of this tick may be written before or after this hook: they are left for the next tick.
        self._log(run, until=state.images - 1, with_grid=tick.is_early or tick.is_due(self.every))

    @hookimpl
    def after_run(self, run: Run) -> None:
        """Log the rest, and close the event file."""
        self._log(run, until=math.inf)
        self._close()

    @hookimpl
    def on_error(self) -> None:
        """Close the event file."""
        self._close()

    @hookimpl
    def save_state(self) -> dict[str, Any]:
        """Return the last tick that is in the event files, the numbers of later ones, and what else is there."""
        own = {"config": self._logged_config, "has_hyperparameters": self._has_hyperparameters}
        return {**self._ticks.save(), **own}

    @hookimpl
    def load_state(self, run: Run, saved: Mapping[str, Any]) -> None:
        """Restore the saved state."""
        self._ticks.load(run, saved)
        # A branch has logged its own.
        if not run.is_new_branch:
            self._logged_config = saved.get("config", self._logged_config)
            self._has_hyperparameters = saved.get("has_hyperparameters", self._has_hyperparameters)

    def estimate_bytes(self, ticks: Sequence[Tick]) -> tuple[int, int]:
        """Return the bytes of the events of ticks, all of which are kept."""
        size = len(ticks) * EVENT_BYTES
        if self.count:
            size += estimate_grids(ticks, self.every, self.count)
        return size, size

    def _log(self, run: Run, until: float, with_grid: bool = False) -> None:
        """Log all that is not in the event files yet.

        Args:
            run: The run.
            until: The clock up to which rows of transitions are logged.
            with_grid: Whether a grid is drawn and logged.
        """
        config = _compute_digest(self._config)
        with self._open_writer(run) as writer:
            # Readers that drop what is later than the last tick keep this.
            if self._logged_config != config:
                self._add_config(writer, self._ticks.last_tick)
            self._add_hyperparameters_once(writer, run)
            self._add_reals_once(writer, run)
            for images, numbers in self._ticks.list_points(until):
                for tag, value in numbers.items():
                    writer.add_scalar(tag, value, images)
            if with_grid and self.count:
                _add_image(writer, "Samples", draw_grid(run, self.count), run.state.images)

        # What is in the event files need not be kept.
        self._logged_config = config
        if self._ticks.ticks:
            self._has_hyperparameters = True
            self._goes_on = True
        self._ticks.clear(run.state.images)

    @contextmanager
    def _open_writer(self, run: Run) -> Iterator[SummaryWriter]:
        """Open the event file within a block, at the end of which all is written."""
        if self._writer is None:
            # Events after the last tick are logged again: readers drop the old ones from `purge_step` on.
            _wait_for_a_second_of_its_own(run.directory)
            self._writer = self._new_writer(str(run.directory), purge_step=self._ticks.last_tick + 1)
        try:
            yield self._writer
            self._writer.flush()
        except Exception:
            # A writer that has failed accepts nothing any more: the next tick opens another.
            with suppress(Exception):
                self._close()
            raise

    def _add_config(self, writer: SummaryWriter, images: int) -> None:
        """Log the operative config as text, which Markdown shows as code where it is indented."""
        if self._config:
            indented = "".join(f"    {line}\n" for line in self._config.splitlines())
            writer.add_text("operative.gin", indented, images)

    def _add_reals_once(self, writer: SummaryWriter, run: Run) -> None:
        """Log the stage's reals, one image after it began, where no tick of it is in the event files yet.

        What is there of them is later than the last tick, and dropped.
        """
        begin = run.state.starts[-1]
        if self.count and self._ticks.last_tick <= begin:
            reals = run.draw_reals(self.count)
            if reals is not None:
                _add_image(writer, "Reals", reals, begin + 1)

    def _add_hyperparameters_once(self, writer: SummaryWriter, run: Run) -> None:
        """Log the bindings of the config, and the tags by which runs are compared, at the first tick of the run."""
        from torch.utils.tensorboard.summary import hparams

        config = _read_text(run.directory / "config.gin")
        # Event files that are gone had them.
        is_there = self._has_hyperparameters and self._goes_on
        if is_there or not self._ticks.ticks or not config:
            return
        _, stats = self._ticks.ticks[0]
        compared = [tag for tag in stats if tag.startswith("Metrics/")]
        if not compared:
            compared = [tag for tag in stats if tag.startswith("Loss/")]
        hyperparameters = parse_hyperparameters(config)
        for summary in hparams(hyperparameters, dict.fromkeys(compared, 0.0)):
            writer._get_file_writer().add_summary(summary, 0)

    def _close(self) -> None:
        writer = self._writer
        self._writer = None
        if writer is not None:
            writer.close()


def _read_text(path: Path) -> str:
    """Return the content of a file; nothing where there is none."""
    if not path.is_file():
        return ""
    return path.read_text(encoding="utf-8-sig")


def _compute_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _wait_for_a_second_of_its_own(folder: Path) -> None:
    """Wait until the name of a new event file sorts after all that are there.

    TensorBoard reads files in the order of their names. Within a second that is the order of processes and counts as
    text, where 10 stands before 9: a run that goes on in the second in which it was stopped would lose events.
    """
    found = (re.match(r"events\.out\.tfevents\.(\d+)\.", file.name) for file in folder.glob(EVENT_FILES))
    newest = max((int(match[1]) for match in found if match), default=0)
    wait = newest + 1 - time.time()
    if 0 < wait <= LONGEST_WAIT:
        time.sleep(wait)


def _add_image(writer: SummaryWriter, tag: str, picture: Image.Image, images: int) -> None:
    pixels = np.asarray(picture)
    writer.add_image(tag, pixels, images, dataformats="HW" if pixels.ndim == 2 else "HWC")
