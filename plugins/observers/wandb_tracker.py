"""Runs in Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pggan_kit import Interval, Run, check_choice
from pggan_plugins.observers.tracker import RowTracker

MODES = ("online", "offline", "shared", "disabled")


class WandB(RowTracker):
    """A run of Weights & Biases, whose step is the clock in images. Needs the extra `wandb`.

    It has every number of each tick under its tag, metrics with their floors among them, and those of
    `transitions.jsonl`; grids under `Samples`; the film of `observers.Growth` at the end; and the bindings of the
    config. Its files are in the folder `wandb` of the run's directory.

    Args:
        project, count, every: See `observers.tracker.Tracker`.
        mode: `online`; `offline`, to be sent later by `wandb sync`, which puts all parts of a resumed run together;
            `shared` or `disabled`. None for what `WANDB_MODE` says, or else `online`.
        entity: The user or team. None for the default one.

    Raises:
        SettingError: There is no such mode, or see `observers.tracker.Tracker`.
    """

    service = "wandb"
    module = "wandb"

    def __init__(
        self,
        project: str = "pggan_kit",
        count: int = 16,
        every: Interval = None,
        mode: str | None = None,
        entity: str | None = None,
    ) -> None:
        super().__init__(project, count, every)
        if mode is not None:
            check_choice("mode", mode, MODES)
        self.mode = mode
        self.entity = entity
        self._run: Any = None

    def open(self, run: Run, name: str, config: Mapping[str, Any]) -> None:
        """Open the run of this name, which is also its id."""
        self._run = self.library.init(
            project=self.project,
            entity=self.entity,
            id=name,
            name=run.name,
            dir=str(run.directory),
            mode=self.mode,
            resume="allow",
            settings=self.library.Settings(console="off", silent=True, save_code=False),
        )
        # Settings may have changed as the run was resumed.
        self._run.config.update(dict(config), allow_val_change=True)

    def close(self, status: str) -> None:
        """Finish the run, and wait until all is written or sent."""
        self._run.finish(exit_code=0 if status == "finished" else 1)
