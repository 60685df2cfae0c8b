"""The common part of observers that send a run to a tracker of experiments."""

from __future__ import annotations

import importlib
import json
import math
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pggan_kit import (
    ConfigError,
    Interval,
    Run,
    SettingError,
    Tick,
    TrainState,
    check_at_least,
    check_interval,
    hookimpl,
    write_atomically,
)
from pggan_plugins.observers.sample_grid import draw_grid, estimate_grids, require_interval
from pggan_plugins.observers.tick_log import Point, TickLog, parse_hyperparameters

if TYPE_CHECKING:
    from PIL import Image

FOLDER = "trackers"
"""Folder in a run's directory with a file for each tracker: which run there is this one, and what it has got."""

FILM = "growth.gif"
"""File of `observers.Growth`."""

LONGEST_REST = 1024
"""Maximum number of ticks between two attempts to reach a tracker."""


class Tracker:
    """An observer that sends numbers over images, grids, the film and the configuration to a tracker.

    A run that is resumed goes on in the tracker's same run, and a copy of it beside the original in one of its own.
    Trackers only append, so that what was sent before is not sent again: a process notes how far it has sent in
    `trackers/NAME.json` before it sends. If it is killed just then, the tracker lacks one tick, and never has one
    twice. A tracker that fails gets what it lacks later: it is tried again at the next tick, and after more ticks each
    time it fails again, since each attempt may wait for a network.

    Args:
        project: Name under which the tracker groups runs.
        count: Number of images in the grids, arranged as by `observers.Samples`; 0 for none.
        every: Images between two grids; see `observers.Samples`.

    Raises:
        SettingError: `count` is below 0, `every` is no interval, or `project` is empty.
    """

    critical = False
    service = ""
    """Name of the tracker, of its file and of the extra."""
    module = ""
    """Name of its library."""

    def __init__(self, project: str = "pggan_kit", count: int = 16, every: Interval = None) -> None:
        check_at_least("count", count, 0, whole=True)
        check_interval("every", every)
        if not isinstance(project, str) or not project:
            raise SettingError("project", f"must be a name, not {project!r}")
        self.project = project
        self.count = count
        self.every = every
        self._ticks = TickLog()
        self._reset()

    def _reset(self) -> None:
        """Clear the state of a run."""
        self.library: Any = None
        self._is_open = False
        self._record: dict[str, Any] = {}
        self._rest = 0
        self._failures = 0

    # What a tracker does.

    def open(self, run: Run, name: str, config: Mapping[str, Any]) -> None:
        """Open the tracker's run, which is there already where something was sent to it.

        Args:
            run: The run.
            name: Name of the tracker's run, which no other run has.
            config: The bindings of the run's config.
        """
        raise NotImplementedError

    def send(self, points: Sequence[Point], grid: Image.Image | None, images: int) -> None:
        """Send numbers by clock, in its order, and a grid, where there is one, of a clock; wait until they are there.

        What is sent twice after a failure must not be there twice, as far as the tracker can be asked.
        """
        raise NotImplementedError

    def send_film(self, path: Path, images: int) -> None:
        """Send an animation."""
        raise NotImplementedError

    def close(self, status: str) -> None:
        """Close the tracker's run, which may be opened again.

        Args:
            status: `finished`, or `failed` where the run ended early.
        """
        raise NotImplementedError

    # When it does it.

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Import the tracker's library, and read how far a resumed run was sent.

        Raises:
            ConfigError: The library is missing, or `every` has no value for the first stage.
        """
        name = f"observers.{type(self).__name__}"
        require_interval(run, f"{name}.every", self.every)
        self._reset()
        self._ticks.begin(run)
        try:
            self.library = importlib.import_module(self.module)
        except ImportError as error:
            raise ConfigError(
                f"{name} needs {self.module} ({error}): pip install 'pggan_kit[{self.service}]', or leave it out of "
                "train.observers"
            ) from error

        # A resumed run goes on under the name that it has there.
        if run.resumed:
            self._record = _read_record(_locate_record(run.directory, self.service))
            if _is_in_a_copy(self._record, run.directory, self.service):
                run.files.warn(
                    f"{name}: this run is a copy of {self._record['folder']}, so it is sent as a run of its own"
                )
                self._record = {}
        if not self._record:
            self._record = {"run": f"{run.name}-{secrets.token_hex(4)}", "sent": 0}

    @hookimpl
    def after_tick(self, run: Run, state: TrainState, stats: Mapping[str, float], tick: Tick) -> None:
        """Send the numbers and, where one is due, a grid; and what could not be sent at earlier ticks."""
        self._ticks.add(state.images, stats)
        if self._rest > 0:
            self._rest -= 1
            return
        # Rows of this tick may be written before or after this hook: they are left for the next tick.
        try:
            self._send_rest(run, until=state.images - 1, with_grid=tick.is_early or tick.is_due(self.every))
        except (Exception, SystemExit):
            # A connection that has failed is of no use: the next attempt opens another.
            with suppress(Exception):
                self._close("failed")
            raise

    @hookimpl
    def after_run(self, run: Run) -> None:
        """Send what is left and the film, and close the tracker's run, which has finished whether that fails or not.

        What could not be sent is sent where the run is resumed.
        """
        try:
            self._send_rest(run, until=math.inf)
            film = run.directory / FILM
            if film.is_file() and self._record.get("film") != run.state.images:
                self._open_once(run)
                self.send_film(film, max(run.state.images, self._record["sent"]))
                self._note(run, film=run.state.images)
        finally:
            self._close("finished")

    @hookimpl
    def on_error(self) -> None:
        """Close the tracker's run."""
        self._close("failed")

    @hookimpl
    def save_state(self) -> dict[str, Any]:
        """Return the numbers that could not be sent yet."""
        return self._ticks.save()

    @hookimpl
    def load_state(self, run: Run, saved: Mapping[str, Any]) -> None:
        """Restore them."""
        self._ticks.load(run, saved)

    def estimate_bytes(self, ticks: Sequence[Tick]) -> tuple[int, int]:
        """Return the bytes of the grids of ticks, all of which are kept."""
        size = 0
        if self.count:
            size = estimate_grids(ticks, self.every, self.count)
        return size, size

    def _send_rest(self, run: Run, until: float, with_grid: bool = False) -> None:
        """Send all that the tracker lacks.

        Args:
            run: The run.
            until: Clock up to which rows of transitions are sent.
            with_grid: Whether a grid is drawn and sent.
        """
        sent = self._record["sent"]
        points = [point for point in self._ticks.list_points(until) if point[0] > sent]
        if points:
            grid = None
            if with_grid and self.count:
                grid = draw_grid(run, self.count)
            try:
                self._open_once(run)
                self._note(run, sent=points[-1][0])
                self.send(points, grid, run.state.images)
            except (Exception, SystemExit):
                self._note(run, sent=sent)
                self._failures += 1
                self._rest = min(2**self._failures, LONGEST_REST) - 2
                raise
        self._failures = 0
        self._ticks.clear(run.state.images)

    def _open_once(self, run: Run) -> None:
        if self._is_open:
            return
        config = {}
        file = run.directory / "config.gin"
        if file.is_file():
            config = parse_hyperparameters(file.read_text(encoding="utf-8-sig"))
        # A process that is killed just then must not begin another run.
        self._note(run)
        self.open(run, self._record["run"], config)
        self._is_open = True

    def _close(self, status: str) -> None:
        if self._is_open:
            self._is_open = False
            self.close(status)

    def _note(self, run: Run, **changes: Any) -> None:
        """Note in the run's directory what the tracker has got."""
        self._record = {**self._record, "folder": str(run.directory.resolve()), **changes}
        path = _locate_record(run.directory, self.service)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, json.dumps(self._record, allow_nan=False).encode())


class RowTracker(Tracker):
    """A tracker that logs rows, pictures and films as W&B does.

    Attributes:
        library: Its library, with `Image` and `Video`.
    """

    _run: Any = None

    def send(self, points: Sequence[Point], grid: Image.Image | None, images: int) -> None:
        """Log a row for each clock; a grid belongs to its row."""
        for clock, numbers in points:
            row: dict[str, Any] = dict(numbers)
            if grid is not None and clock == images:
                row["Samples"] = self.library.Image(grid)
            self._run.log(row, step=clock)

    def send_film(self, path: Path, images: int) -> None:
        """Log the film."""
        self._run.log({"Growth": self.library.Video(str(path), format="gif")}, step=images)


def _is_in_a_copy(record: Mapping[str, Any], directory: Path, service: str) -> bool:
    """Return whether a record lies in a copy of the run that it was written for: the original still has it.

    The folder of a run that was moved or renamed is gone, another run's, or a link to where it is now.
    """
    folder = record.get("folder")
    if not isinstance(folder, str):
        return False
    original = Path(folder)
    if _read_record(_locate_record(original, service)).get("run") != record["run"]:
        return False
    return not original.samefile(directory)


def _locate_record(directory: Path, service: str) -> Path:
    return directory / FOLDER / f"{service}.json"


def _read_record(path: Path) -> dict[str, Any]:
    """Return what was noted; nothing where the file is missing or damaged, and a new run of the tracker begins."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(record, dict) or type(record.get("run")) is not str or type(record.get("sent")) is not int:
        return {}
    return record
