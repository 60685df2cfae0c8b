"""Load a trained generator, of a run or of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.api.average import load_average
from pggan_kit.api.generator_file import load_generator_file
from pggan_kit.api.prepare import prepare_run
from pggan_kit.errors import RunError, require_path
from pggan_kit.runs.exported import find_exported_generator
from pggan_kit.runs.generators import TrainedGenerator
from pggan_kit.runs.run import Run


def load_generator(
    run: str | Path | Run,
    *,
    stage: str | int | None = None,
    average: str | float | Path | None = None,
    checkpoint: str = "last",
    plugins: Sequence[Any] = (),
    parts: Mapping[str, object] | None = None,
) -> TrainedGenerator:
    """Return the averaged generator of a run or of a file, on the CPU. Its training data are not needed.

    Args:
        run: a run or its directory; or what `pggan-kit export` wrote: a file `FILE.safetensors`, or a folder for a hub.
            These have one generator, so that `stage`, `average`, `checkpoint` and `parts` are left out.
        stage: a stage's number from 0, or its size (`14x14`), for the generator as it was when that stage ended; None:
            that of the last checkpoint.
        average: the name of one of the run's averages; a width, for the average that is made of the power functions
            that the run has kept; or a file that `pggan-kit average` wrote. None for the first of `train.averages`.
        checkpoint: `last`; `best` for the one that `train.keep_best` kept, and `chosen` then says by what; or `fade`
            for the last within a fade, that of `stage` where one is named: its `alpha` can be filled with any other.
        plugins: plugins instead of the plugin files that the run used; a file's plugins are never loaded unasked.
        parts: new objects for those that the run was begun with; None where there were none.

    Raises:
        RunError: there is no run, no such stage or average, no checkpoint, or one that does not fit the run's config;
            or the file is cut off, damaged or of something else.
    """
    file = None if isinstance(run, Run) else find_exported_generator(require_path("run", run))

    # A file has one generator, so nothing about it can be chosen.
    if file is not None:
        given = {
            "stage": stage is not None,
            "average": average is not None,
            "checkpoint": checkpoint != "last",
            "parts": bool(parts),
        }
        needless = [name for name, is_given in given.items() if is_given]
        if needless:
            raise RunError(f"{file} has one generator: leave {' and '.join(needless)} out")
        return load_generator_file(file, plugins)

    prepared, files = prepare_run(run, plugins, parts, needs_data=False)
    generator, saved, _ = load_average(prepared, files, prepared.resolve_schedule(), stage, average, checkpoint)
    if checkpoint == "best":
        generator.chosen = saved.best
    return generator
