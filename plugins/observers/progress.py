"""The progress of a run: a live display in a terminal, otherwise a plain line a tick."""

from __future__ import annotations

import math
import shlex
import statistics
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pggan_kit import Interval, Run, Schedule, TrainState, hookimpl, resolve_interval
from pggan_plugins.observers.growth import Growth
from pggan_plugins.observers.phase import name_phase
from pggan_plugins.observers.samples import Samples, locate_samples

REFRESH_SECONDS = 0.25
"""Seconds between two updates of the display."""

WINDOW_SECONDS = 10.0
"""Seconds over which the rate is measured, about."""

SPELL_SECONDS = 2.0
"""Minimum seconds of a spell, whose speed is one vote in the estimate of the time left."""

SPELLS = 30
"""Number of last spells that the estimate looks at: a minute or more."""

LEAST_SPELLS = 3
"""Number of spells before there is an estimate: the median of fewer is moved by one."""

LOSS_PREFIX = "Loss/"


class Progress:
    """A display of stage, phase, alpha, images of the total, images per second and the time left, on stderr.

    In a terminal the display is updated four times a second and shows the last tick's losses; elsewhere there is one
    plain line a tick. At the start it says what will happen and where to look meanwhile; at the end it lists the files
    worth opening.
    """

    critical = False

    def __init__(self) -> None:
        self._console = StderrConsole()
        self._live: Live | None = None
        self._pace = Pace()
        self._losses = ""
        self._started = 0.0
        self._next_refresh = 0.0

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Print the run's directory, what will happen and where to look; start the display."""
        self._pace = Pace()
        self._losses = ""
        self._started = time.perf_counter()
        self._next_refresh = math.inf
        if run.state.is_over:
            return  # a run that is resumed when it is complete: nothing will be trained
        self._print(f"{'resuming' if run.resumed else 'training'} {run.directory}")
        for line in describe_plan(run):
            self._print(f"  {line}")

        if self._console.is_interactive:
            self._next_refresh = self._started
            # stdout is left alone, for machines to read; a thread that refreshes would compete with the step.
            self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False)
            self._live.start()

    @hookimpl
    def before_stage(self, state: TrainState) -> None:
        """Measure the pace from here on: the new stage has its own."""
        self._pace.begin_stage(time.perf_counter(), state.images)

    @hookimpl
    def before_compile(self, run: Run, net: str) -> None:
        """Show why the run pauses."""
        message = f"compiling the {net}'s step, once for this size ..."
        if self._live is not None:
            self._live.update(build_display(run, self._pace, self._started, message), refresh=True)
        else:
            self._print(f"{describe_position(run)}  {message}")

    @hookimpl
    def after_step(self, run: Run, state: TrainState) -> None:
        """Update the display if it is due; otherwise only read the clock."""
        now = time.perf_counter()
        if now < self._next_refresh:
            return
        self._next_refresh = now + REFRESH_SECONDS
        self._pace.mark(now, state.images, state.stage.height)
        self._refresh(run)

    @hookimpl
    def after_tick(self, run: Run, state: TrainState, stats: Mapping[str, float]) -> None:
        """Show the tick's losses, or print its line."""
        self._losses = format_losses(stats)
        self._pace.mark(time.perf_counter(), state.images, state.stage.height)
        if self._live is not None:
            self._refresh(run)
            return
        columns = [describe_position(run), describe_progress(run, self._pace, self._started), self._losses]
        self._print("  ".join(columns).rstrip())

    @hookimpl
    def after_run(self, run: Run, result: Mapping[str, Any]) -> None:
        """List the files worth opening."""
        self._stop_display()
        took = format_duration(time.perf_counter() - self._started)
        images = f"{result['images']:,} images"
        if run.state.ended:
            images += f" of {run.schedule.total:,}, as a plugin ended the run (should_end)"
        self._print(f"{images}, {took}. Have a look at:")
        for line in list_outputs(run):
            self._print(f"  {line}")

    @hookimpl
    def on_error(self) -> None:
        """Release the terminal; the last display stays."""
        self._stop_display()

    def _refresh(self, run: Run) -> None:
        assert self._live is not None, "only a terminal is refreshed"
        self._live.update(build_display(run, self._pace, self._started, self._losses), refresh=True)

    def _stop_display(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._next_refresh = math.inf

    def _print(self, line: str) -> None:
        # Paths must stay whole, so that they can be copied.
        self._console.print(line, soft_wrap=True)


class StderrConsole(Console):
    """A console on stderr. Where nobody reads that any more, it fails as a file does: rich would end the process."""

    def __init__(self) -> None:
        super().__init__(stderr=True, markup=False, highlight=False)

    def on_broken_pipe(self) -> None:
        """Fail, so that the run goes on without the observer, which is tried again at each tick."""
        raise BrokenPipeError("nobody reads stderr any more")


class Pace:
    """The speed of a run: over the last seconds, to be shown; and the usual one, for an estimate of the time left."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()
        self._spells: deque[float] = deque(maxlen=SPELLS)
        self._spell_began: tuple[float, int] | None = None

    def begin_stage(self, seconds: float, images: int) -> None:
        """Measure the images of a new stage apart from those before it."""
        self._marks.clear()
        self._marks.append((seconds, images))
        self._spell_began = (seconds, images)

    def mark(self, seconds: float, images: int, height: int) -> None:
        """Record the clock's position in images at a time in seconds, and the height of those images."""
        self._marks.append((seconds, images))
        while len(self._marks) > 2 and seconds - self._marks[1][0] > WINDOW_SECONDS:
            self._marks.popleft()

        if self._spell_began is None:
            self._spell_began = (seconds, images)
        began_seconds, began_images = self._spell_began
        if seconds - began_seconds >= SPELL_SECONDS and images > began_images:
            self._spells.append((seconds - began_seconds) / (images - began_images) / height)
            self._spell_began = (seconds, images)

    @property
    def images_per_second(self) -> float:
        """Images per second over the window; 0 while nothing is known."""
        if not self._marks:
            return 0.0
        first_seconds, first_images = self._marks[0]
        last_seconds, last_images = self._marks[-1]
        if last_seconds <= first_seconds:
            return 0.0
        return (last_images - first_images) / (last_seconds - first_seconds)

    @property
    def usual_seconds(self) -> float | None:
        """Seconds of an image of height 1: the median over the last spells. None while there are too few of them.

        A machine that is busy for a moment, or a tick that compiles, does not move a median.
        """
        if len(self._spells) < LEAST_SPELLS:
            return None
        return statistics.median(self._spells)


def estimate_work_left(schedule: Schedule, starts: Sequence[int], images: int) -> float:
    """Estimate the training that is left, in images of height 1.

    An image counts in proportion to its height. That lies between equal costs and costs in proportion to the pixels,
    since larger stages have fewer channels.
    """
    clock = schedule.end(starts)
    left = float(clock - images) * schedule.stages[len(starts) - 1].height
    for stage in schedule.stages[len(starts) :]:
        # The last stage takes all that remains.
        remaining = schedule.total - clock
        spent = remaining if stage is schedule.stages[-1] else min(stage.budget, remaining)
        left += spent * stage.height
        clock += spent
    return left


def describe_plan(run: Run) -> list[str]:
    """Return lines that say what a run will do, and where to look meanwhile."""
    # What is trained, and how to go on with it.
    sizes = ", ".join(stage.size for stage in run.schedule.list_planned_stages())
    plan = f"{run.schedule.total:,} images at {sizes}"
    command = f"pggan-kit resume {shlex.quote(str(run.directory))}"
    lines = [f"{plan}. Ctrl-C saves and stops; go on with: {command}"]

    # What there is to look at.
    observers = run.experiment.observers
    for observer in observers:
        if isinstance(observer, Samples):
            grid = find_next_grid(run, observer.every)
            lines.append(f"look now: {locate_samples(run)}  the next grid of samples is there at {grid:,} images")
            break
    if any(isinstance(observer, Growth) for observer in observers):
        lines.append(f"the film: {run.directory / 'growth.gif'}  it grows with the run")
    return lines


def find_next_grid(run: Run, every: Interval) -> int:
    """Return the image count of the next tick with a grid, or of the phase's end, which has one, if that is earlier.

    Args:
        run: The run.
        every: Interval between two grids.
    """
    state = run.state
    schedule = run.schedule
    tick = run.experiment.tick
    early = [place for place in schedule.list_early_ticks(tick) if place > state.images]
    if early:
        return early[0]
    position = schedule.at(state.images, state.starts)
    if state.images >= position.phase_end and position.stage is not schedule.stages[-1]:
        # A run that is resumed just where a stage ended grows before anything else.
        position = schedule.at(state.images, [*state.starts, state.images])
    interval = resolve_interval(every, position.stage, schedule.total)
    if interval is None:
        return position.phase_end
    place = (state.images // interval + 1) * interval
    return min(-(-place // tick) * tick, position.phase_end)


def describe_position(run: Run) -> str:
    """Return a text like `stage 2/3 14x14  fade  alpha 0.43`."""
    state = run.state
    place = f"stage {state.stage.index + 1}/{len(run.schedule.stages)} {state.stage.size}"
    return f"{place}  {name_phase(state)}  alpha {run.alpha['generator']:.2f}"


def describe_progress(run: Run, pace: Pace, started: float) -> str:
    """Return a text like `12,800 of 100,000 images  812 images/s  elapsed 0:16  about 1:47 left`.

    Args:
        run: The run.
        pace: The speed of its clock.
        started: The time of its start, by `time.perf_counter`.
    """
    columns = [f"{run.state.images:,} of {run.schedule.total:,} images"]

    # Neither a rate nor a time left is known at first.
    rate = pace.images_per_second
    if rate > 0:
        columns.append(f"{rate:,.0f} images/s" if rate >= 10 else f"{rate:.1f} images/s")
    columns.append(f"elapsed {format_duration(time.perf_counter() - started)}")
    if pace.usual_seconds is not None:
        seconds_left = estimate_work_left(run.schedule, run.state.starts, run.state.images) * pace.usual_seconds
        columns.append(f"about {format_duration(seconds_left)} left")
    return "  ".join(columns)


def build_display(run: Run, pace: Pace, started: float, message: str) -> RenderableType:
    """Build four lines: the position, a bar of the progress, the numbers, and a message."""
    lines = Table.grid()
    lines.add_row(Text(describe_position(run), "bold", no_wrap=True, overflow="ellipsis"))
    lines.add_row(ProgressBar(run.schedule.total, run.state.images))
    lines.add_row(Text(describe_progress(run, pace, started), no_wrap=True, overflow="ellipsis"))
    lines.add_row(Text(message, "dim", no_wrap=True, overflow="ellipsis"))
    return lines


def format_duration(seconds: float) -> str:
    """Return a duration as `0:07`, `12:30` or `3:05:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}"


def list_outputs(run: Run) -> list[str]:
    """List the files and commands that show a run's results, or its directory where observers left none."""
    folder = run.directory
    outputs = [str(path) for path in (folder / "growth.gif", folder / "samples") if path.exists()]
    if any(folder.glob("events.out.tfevents.*")):
        outputs.append(f"tensorboard --logdir {shlex.quote(str(folder))}")
    return outputs or [str(folder)]


def format_losses(stats: Mapping[str, float]) -> str:
    """Return a text like `discriminator/R1 0.512  generator/logistic 0.886`."""
    columns = []
    for tag, value in stats.items():
        if tag.startswith(LOSS_PREFIX):
            columns.append(f"{tag.removeprefix(LOSS_PREFIX)} {value:.3f}")
    return "  ".join(columns)
