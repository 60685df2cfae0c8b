"""Load the trained generator of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.api.prepare import prepare_run
from pggan_kit.runs.generators import TrainedGenerator, load_place, restore_generator
from pggan_kit.runs.run import Run


def load_generator(
    run: str | Path | Run,
    *,
    stage: str | int | None = None,
    checkpoint: str = "last",
    plugins: Sequence[Any] = (),
    parts: Mapping[str, object] | None = None,
) -> TrainedGenerator:
    """Return the averaged generator of a run, on the CPU. Its training data are not needed.

    Args:
        run: a run or its directory.
        stage: a stage's number from 0, or its size (`14x14`), for the generator as it was when that stage ended; None:
            that of the last checkpoint.
        checkpoint: `last`, or `best` for the one that `train.keep_best` kept; `chosen` then says by what.
        plugins: plugins instead of the plugin files that the run used.
        parts: new objects for those that the run was begun with; None where there were none.

    Raises:
        RunError: there is no run, no such stage, no checkpoint, or one that does not fit the run's config.
    """
    prepared, files = prepare_run(run, plugins, parts, needs_data=False)
    saved = load_place(files.checkpoints(), stage, checkpoint)

    schedule = prepared.resolve_schedule()
    own = prepared.identify_networks(schedule)
    generator = restore_generator(prepared.built.experiment, schedule, prepared.hooks(), saved, own)
    if checkpoint == "best":
        generator.chosen = saved.best
    return generator
