"""Load the trained generator of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.api.prepare import recorded
from pggan_kit.runs.generators import TrainedGenerator, restored, stage_end
from pggan_kit.runs.run import Run


def load_generator(
    run: str | Path | Run,
    *,
    stage: str | int | None = None,
    plugins: Sequence[Any] = (),
    parts: Mapping[str, object] | None = None,
) -> TrainedGenerator:
    """The averaged generator of a run, on the CPU.

    Args:
        run: a run or its directory.
        stage: as it was when this stage ended: its number from 0, or its size (`14x14`); None: of the last checkpoint.
        plugins: instead of the plugin files that the run used.
        parts: where the run was begun with objects: such objects again.

    Raises:
        RunError: there is no run, no such stage, no checkpoint, or one that does not fit.
    """
    prepared, files = recorded(run, plugins, parts)
    checkpoints = files.checkpoints()
    saved = checkpoints.load_last() if stage is None else stage_end(checkpoints, stage)[1]
    return restored(prepared.built.experiment, prepared.schedule(), prepared.hooks(), saved)
