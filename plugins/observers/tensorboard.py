"""Event files for TensorBoard."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pggan_kit import JsonLines, Run, TrainState, check_at_least, hookimpl
from pggan_plugins.observers.sample_grid import draw_grid

if TYPE_CHECKING:
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

LONGEST_VALUE = 200
"""Maximum characters of a setting among the hyperparameters."""

PREFIX = "Transition/"
"""Prefix of the tags in `transitions.jsonl`."""


class TensorBoard:
    """TensorBoard events in the run's directory. The x-axis is the clock, in images.

    They hold every number of each tick under its tag, and those of `transitions.jsonl` where
    `observers.TransitionShock` writes it; a grid of samples; charts of related numbers; the operative config as text;
    and the bindings of the config as hyperparameters, by whose metrics (without any, losses) runs are compared.

    Args:
        count: The number of images in the grid `Samples`, arranged as by `observers.Samples`; 0 draws none.

    Raises:
        ValueError: `count` below 0.
    """

    critical = False

    def __init__(self, count: int = 64) -> None:
        check_at_least("count", count, 0)
        # Slow to import: only runs with this observer wait for it, and before they start.
        from torch.utils.tensorboard import SummaryWriter

        self.count = count
        self._new_writer = SummaryWriter
        self._writer: SummaryWriter | None = None

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Open the event file; log the operative config and the charts once per run."""
        self._transitions = JsonLines(run.directory / "transitions.jsonl")
        # Events after the checkpoint are logged again: readers drop the old ones from `purge_step` on.
        purge_step = run.state.images + 1 if run.resumed else None
        writer = self._new_writer(str(run.directory), purge_step=purge_step)
        self._writer = writer
        if run.resumed:
            self._logged_until = run.state.images - 1.0
            self._has_hyperparameters = run.state.last_tick > 0
        else:
            self._logged_until = -1.0
            self._has_hyperparameters = False
            writer.add_custom_scalars(LAYOUT)
            self._add_operative_config(writer, run)
        writer.flush()

    @hookimpl
    def after_tick(self, run: Run, state: TrainState, stats: Mapping[str, float]) -> None:
        """Log all numbers and the grid."""
        writer = self._writer
        assert writer is not None, "before_run comes first"
        if not self._has_hyperparameters:
            self._add_hyperparameters(run, stats)
            self._has_hyperparameters = True
        for tag, value in stats.items():
            writer.add_scalar(tag, value, state.images)

        # Rows of this tick may be written before or after this hook: they are left for the next tick.
        self._add_transitions(state.images - 1)

        if self.count:
            grid = np.asarray(draw_grid(run, self.count))
            writer.add_image("Samples", grid, state.images, dataformats="HW" if grid.ndim == 2 else "HWC")
        writer.flush()

    @hookimpl
    def after_run(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._add_transitions(math.inf)
        self._close()

    @hookimpl
    def on_error(self) -> None:
        """Close the event file."""
        self._close()

    def _add_operative_config(self, writer: SummaryWriter, run: Run) -> None:
        """Log the operative config as text, which Markdown shows as code where it is indented."""
        operative = run.directory / "operative.gin"
        if operative.is_file():
            indented = "".join(f"    {line}\n" for line in operative.read_text(encoding="utf-8-sig").splitlines())
            writer.add_text("operative.gin", indented, 0)

    def _add_transitions(self, until: float) -> None:
        """Log the rows up to a clock that were not logged yet, one image later.

        They are written after their tick's checkpoint, and a run that is resumed from it must drop them.
        """
        assert self._writer is not None
        for row in self._transitions.read():
            if self._logged_until < row["images"] <= until:
                for tag, value in row.items():
                    # A value that was not finite was written as null.
                    if tag.startswith(PREFIX) and value is not None:
                        self._writer.add_scalar(tag, value, row["images"] + 1)
        self._logged_until = until

    def _add_hyperparameters(self, run: Run, stats: Mapping[str, float]) -> None:
        """Log the bindings of the config, and the tags by which runs are compared."""
        from torch.utils.tensorboard.summary import hparams

        config = run.directory / "config.gin"
        if not config.is_file():
            return
        compared = [tag for tag in stats if tag.startswith("Metrics/")]
        if not compared:
            compared = [tag for tag in stats if tag.startswith("Loss/")]
        assert self._writer is not None
        for summary in hparams(
            parse_hyperparameters(config.read_text(encoding="utf-8-sig")), dict.fromkeys(compared, 0.0)
        ):
            self._writer._get_file_writer().add_summary(summary, 0)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def parse_hyperparameters(config: str) -> dict[str, Any]:
    """Return the bindings of a self-contained gin text: numbers, truth values and strings as such, the rest as text."""
    parsed: dict[str, Any] = {}
    for name, text in re.findall(r"^([\w./]+) = (.+)$", config, re.MULTILINE):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = None
        if isinstance(value, (bool, int, float, str)):
            parsed[name] = value
        else:
            parsed[name] = text[:LONGEST_VALUE]
    return parsed
