"""The images at the ends of stages, and how far the same latents' images move away from them afterwards."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pggan_kit import (
    Interval,
    JsonLines,
    Run,
    Stage,
    Tick,
    TrainState,
    check_at_least,
    check_interval,
    hold_in_tensor,
    hookimpl,
    write_atomically,
)
from pggan_kit.components import FeatureExtractor
from pggan_plugins.metrics.coherence import (
    choose_height,
    compare_pictures,
    draw_latents,
    make_labels,
    reduce_images,
)
from pggan_plugins.observers.sample_grid import require_interval

FOLDER = "coherence"


class Coherence:
    """The averaged generator's images of the same latents at the end of each stage, and how far later ones are from
    them: the curve between the values of `metrics.Coherence`, which explains the unit.

    `coherence/7x7.npz` in the run's directory has the `images` (N, h, w, C) at the end of the stage, in the type and
    the units of the data, with their `latents` (N, Z) and, of a conditional generator, `labels` (N,).
    `coherence.jsonl` has rows from later stages, and one right after each growth, which is written at the next tick:
    `at` is the clock of its images, `stage` and `size` say what was trained, and `Coherence/7x7` is the value against
    the end of that stage; `Coherence_features/7x7` the same in features.

    Args:
        features: Features in which the images are compared too.
        count: Number of latents.
        seed: Seed of the latents, which are those of `metrics.Coherence` with the same `count` and `seed`.
        largest: Largest height at which images are kept and compared; see `metrics.Coherence`.
        every: Images between two rows; see `observers.Samples`.

    Raises:
        SettingError: `count` below 2, `largest` below 1, or `every` is no interval.
    """

    critical = False

    def __init__(
        self,
        features: FeatureExtractor | None = None,
        count: int = 256,
        seed: int = 0,
        largest: int = 64,
        every: Interval = None,
    ) -> None:
        check_at_least("count", count, 2)
        check_at_least("largest", largest, 1)
        check_interval("every", every)
        self.features = features
        self.count = count
        check_at_least("seed", seed, 0)
        self.seed = seed
        self.largest = largest
        self.every = every
        self._reset()

    def _reset(self) -> None:
        """Clear the state of a run."""
        self._ends: dict[int, Tensor] = {}
        self._unwritten: list[dict[str, Any]] = []

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Reset the state that an earlier run left; drop what a resumed run has written after its checkpoint.

        Raises:
            ConfigError: `every` has no value for the first stage.
        """
        require_interval(run, "observers.Coherence.every", self.every)
        self._reset()

        # The latents and labels that are followed through all stages.
        labels = run.fixed_labels(self.count)
        classes = 0 if labels is None else int(labels.max()) + 1
        self._labels = make_labels(self.count, classes)
        self._latents = draw_latents(self.count, run.experiment.latent_size, self.seed)

        # What a resumed run wrote after its checkpoint is written again.
        (run.directory / FOLDER).mkdir(exist_ok=True)
        self._rows = JsonLines(run.directory / "coherence.jsonl")
        if run.resumed and self._rows.path.exists():
            self._rows.cut(run.state.images, run.files.warn)
        for stage in run.schedule.stages[run.state.stage.index :]:
            _locate_file(run, stage).unlink(missing_ok=True)

    @hookimpl
    def before_stage(self, run: Run, stage: Stage, state: TrainState, continues: bool) -> None:
        """Measure the effect of a growth."""
        if not continues:
            self._measure(run, stage, state)

    @hookimpl
    def after_tick(self, run: Run, stage: Stage, state: TrainState, tick: Tick) -> None:
        """Measure where it is due, and write the rows; those that cannot be written are left for the next tick."""
        if tick.is_due(self.every):
            self._measure(run, stage, state)
        while self._unwritten:
            self._rows.append({"images": state.images, **self._unwritten[0]})
            del self._unwritten[0]

    @hookimpl
    def after_stage(self, run: Run, stage: Stage, state: TrainState) -> None:
        """Keep the images, unless nothing was trained at this size."""
        if state.images == state.starts[-1]:
            return
        kept = run.values.to_units(self._draw(run, self._choose_height(run, stage))).numpy()
        self._ends[stage.index] = hold_in_tensor(kept)
        arrays = {"images": kept.transpose(0, 2, 3, 1), "latents": self._latents.numpy()}
        if self._labels is not None:
            arrays["labels"] = self._labels.numpy()
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        write_atomically(_locate_file(run, stage), content.getvalue())

    @hookimpl
    def save_state(self, run: Run) -> dict[str, Any]:
        """Return the images of the stages that have ended, the rows that are not written, and what they depend on."""
        return {
            "settings": self._list_settings(run),
            "ends": dict(self._ends),
            "unwritten": [dict(row) for row in self._unwritten],
        }

    @hookimpl
    def load_state(self, run: Run, saved: Mapping[str, Any]) -> None:
        """Restore the saved state. Images of other latents, of another size or in other units are of no use."""
        if saved["settings"] != self._list_settings(run):
            return
        self._ends = dict(saved["ends"])
        # A branch has files of its own.
        if not run.is_new_branch:
            self._unwritten = [dict(row) for row in saved["unwritten"]]

    def _list_settings(self, run: Run) -> list[Any]:
        """Return what kept images depend on: latents, size, and the units of the data."""
        return [self.count, self.seed, self.largest, str(run.values)]

    def _measure(self, run: Run, stage: Stage, state: TrainState) -> None:
        """Add a row with the values against all stages that have ended; none in the first stage."""
        earlier = {index: kept for index, kept in self._ends.items() if index < stage.index}
        if not earlier:
            return

        # The same latents now, reduced to the size of each earlier end.
        row: dict[str, Any] = {"at": state.images, "stage": stage.index, "size": stage.size}
        images = self._draw(run, self._choose_height(run, stage))
        for index, kept in earlier.items():
            size = run.schedule.stages[index].size
            before = run.values.to_images(kept)
            now = reduce_images(images, before.shape[2])
            row[f"Coherence/{size}"] = compare_pictures(before, now, self._labels)
            if self.features is not None:
                spaces = (self.features(before), self.features(now))
                row[f"Coherence_features/{size}"] = compare_pictures(*spaces, self._labels)
        self._unwritten.append(row)

    def _draw(self, run: Run, height: int) -> Tensor:
        """Return images (N, C, h, w) of the average, rounded as the data are at their own size and then reduced."""
        images = run.values.round_images(run.generate(self._latents, self._labels))
        return reduce_images(images, height)

    def _choose_height(self, run: Run, stage: Stage) -> int:
        """Return the height at which images of a stage are kept."""
        return choose_height([each.height for each in run.schedule.stages[: stage.index + 1]], self.largest)


def _locate_file(run: Run, stage: Stage) -> Path:
    """Return the path of the images at the end of a stage."""
    return run.directory / FOLDER / f"{stage.size}.npz"
