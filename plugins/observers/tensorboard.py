"""Event files for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pggan_kit.hookspecs import hookimpl
from pggan_kit.runs import Run
from pggan_kit.state import TrainState
from pggan_plugins.observers.grid import draw_grid
from pggan_plugins.observers.shared import require_count

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """TensorBoard events in the run's directory: every number of each tick under its tag, a grid of samples, and the
    operative config as text. The x-axis is the clock, in images.

    Args:
        count: images in the grid `Samples`, laid out as by `observers.Samples`; 0 draws none.

    Raises:
        ValueError: `count` below 0.
    """

    critical = False

    def __init__(self, count: int = 64) -> None:
        require_count("count", count, 0)
        # Slow to import: only those pay who chose it, and before the run starts.
        from torch.utils.tensorboard import SummaryWriter

        self.count = count
        self._new_writer = SummaryWriter
        self._writer: SummaryWriter | None = None

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Open the event file; log the operative config once per run."""
        # What was logged after the checkpoint comes again: readers drop the old events from `purge_step` on.
        purge_step = run.state.images + 1 if run.resumed else None
        self._writer = self._new_writer(str(run.directory), purge_step=purge_step)
        operative = run.directory / "operative.gin"
        if not run.resumed and operative.exists():
            indented = "".join(f"    {line}\n" for line in operative.read_text().splitlines())
            self._writer.add_text("operative.gin", indented, 0)
        self._writer.flush()

    @hookimpl
    def after_tick(self, run: Run, state: TrainState, stats: Mapping[str, float]) -> None:
        """Log all numbers and the grid."""
        writer = self._writer
        assert writer is not None, "before_run comes first"
        for tag, value in stats.items():
            writer.add_scalar(tag, value, state.images)
        if self.count:
            grid = np.asarray(draw_grid(run, self.count))
            writer.add_image("Samples", grid, state.images, dataformats="HW" if grid.ndim == 2 else "HWC")
        writer.flush()

    @hookimpl
    def after_run(self) -> None:
        """Close the event file."""
        self._close()

    @hookimpl
    def on_error(self) -> None:
        """Close the event file."""
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
