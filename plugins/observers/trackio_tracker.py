"""Runs in Trackio."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

from pggan_kit import Interval, Run
from pggan_plugins.observers.tracker import RowTracker


class Trackio(RowTracker):
    """A run of Trackio, whose step is the clock in images. Needs the extra `trackio`.

    It has every number of each tick under its tag, metrics with their floors among them, and those of
    `transitions.jsonl`; grids under `Samples`; the film of `observers.Growth` at the end; and the bindings of the
    config. Trackio writes in the background: a process that is killed may lose its last
    seconds there.

    Args:
        project, count, every: See `observers.tracker.Tracker`.
        space: A Space on Hugging Face, such as `name/space`. None for files on this machine, in the folder that
            `TRACKIO_DIR` names, or else Trackio's own.

    Raises:
        SettingError: See `observers.tracker.Tracker`.
    """

    service = "trackio"
    module = "trackio"

    def __init__(
        self, project: str = "pggan_kit", count: int = 16, every: Interval = None, space: str | None = None
    ) -> None:
        super().__init__(project, count, every)
        self.space = space
        self._run: Any = None

    def open(self, run: Run, name: str, config: Mapping[str, Any]) -> None:
        """Open the run of this name."""
        # It prints where it writes, in the middle of the run's own display.
        with redirect_stdout(io.StringIO()):
            self._run = self.library.init(
                project=self.project,
                name=name,
                space_id=self.space,
                config=dict(config),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def close(self, status: str) -> None:
        """Finish the run, and wait until all is written or sent."""
        with redirect_stdout(io.StringIO()):
            self.library.finish()
