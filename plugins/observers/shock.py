"""Measurements of the jump at a switch, and of the recovery after it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pggan_kit import (
    STABLE,
    JsonLines,
    Run,
    SettingError,
    Stage,
    TrainState,
    check_above,
    check_at_least,
    check_finite,
    hookimpl,
)
from pggan_kit.components import FeatureExtractor

GROWTH = "growth"
FADE_END = "fade_end"
METRICS = "Metrics/"

Step = tuple[tuple[str, ...], Tensor]
"""Numbers of one step: their names, and values (K,) that stay on the device until a tick, which may wait for it."""


class TransitionShock:
    """The file `transitions.jsonl` in the run's directory: a row for each switch, written at the first tick after it.

    A switch is a growth (`event: growth`), or the end of a fade, when the old path goes (`fade_end`). `at` is its
    clock, `from` and `size` are the sizes before and after, `images` is the clock of the tick. Its numbers have tags,
    which `observers.TensorBoard` shows:

    * `Transition/rms/generator`, `Transition/rms/ema`: the jump of the images of fixed latents, as the root mean square
      of their difference, in [0, 2]; the smaller images are enlarged to the new size as the fade does it.
    * `Transition/features/...`: the same in feature space, in units of the distance of the images before from their
      mean.
    * `Transition/<tag>/before` and `/after`: means of all losses, scores and gradient norms over the last and the first
      `steps` steps; for `Metrics/*` the last value before and the first after. Gradient norms (`Gradient/generator`,
      `Gradient/discriminator`) are of the gradients that an update leaves in the networks: there are none where it
      leaves none, or where losses are scaled.

    When the watched metric is back within its noise band, another row follows (`event: recovery`) with
    `Transition/recovery`: the images from the growth until then, in whole ticks. It is back when
    `value / floor <= value_before / floor_before + band`: sizes are compared in units of their own noise floor. A stage
    that ends earlier has no such row.

    Args:
        count: The number of images of fixed latents.
        features: A feature space to measure in, too.
        steps: The number of steps before and after over which means are taken.
        watch: The tag of the metric, a distance that comes with `<watch>_floor`.
        band: The width of the band above the level before, in noise floors, above 0.

    Raises:
        ValueError: `count` or `steps` below 1, a `watch` that is no metric's tag, or a `band` not above 0.
    """

    critical = False

    def __init__(
        self,
        count: int = 64,
        features: FeatureExtractor | None = None,
        steps: int = 16,
        watch: str = "Metrics/FID",
        band: float = 1.0,
    ) -> None:
        check_at_least("count", count, 1)
        check_at_least("steps", steps, 1)
        if not watch.startswith(METRICS):
            raise SettingError("watch", f"must name a metric's tag, e.g. 'Metrics/FID', not {watch!r}")
        check_above("band", band, 0)
        check_finite("band", band)

        # What is measured, and how it is judged that the shock is over.
        self.count = count
        self.features = features
        self.steps = steps
        self.watch = watch
        self.band = band
        self._reset()

    def _reset(self) -> None:
        """Clear the state of a run."""
        self._images: dict[str, Tensor] | None = None
        self._last_alpha: float | None = None
        self._recent: deque[Step] = deque(maxlen=self.steps)
        self._metrics: dict[str, float] = {}
        self._open: list[dict[str, Any]] = []
        self._first: list[Step] = []
        self._awaited: dict[str, Any] | None = None
        self._unwritten: list[dict[str, Any]] = []

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Reset the state that an earlier run left; cut the rows of a resumed run back to its checkpoint."""
        self._reset()
        self._rows = JsonLines(run.directory / "transitions.jsonl")
        if run.resumed and self._rows.path.exists():
            self._rows.cut(run.state.images, run.files.warn)

    @hookimpl
    def after_step(self, run: Run, state: TrainState, losses: Mapping[str, Tensor]) -> None:
        """Record the step's numbers, on the device."""
        values = dict(losses)
        # In float16 the losses are scaled, and with them the gradients.
        if run.experiment.precision != "float16":
            values |= measure_gradient_norms(state)
        if not values:
            return

        step = (tuple(values), torch.stack([value.detach().float() for value in values.values()]))
        self._recent.append(step)
        if self._open and len(self._first) < self.steps:
            self._first.append(step)

    @hookimpl
    def after_tick(self, run: Run, state: TrainState, stats: Mapping[str, float]) -> None:
        """Write the rows that are complete now; at a fade's last tick, generate the images before its end."""
        # Complete the open rows with the numbers since the switch.
        metrics = {tag: value for tag, value in stats.items() if tag.startswith(METRICS)}
        after = {**average_steps(self._first), **metrics}
        for row in self._open:
            before = row.pop("before")
            for tag in sorted(before.keys() & after.keys()):
                if not tag.endswith("_floor"):
                    row[f"Transition/{tag}/before"] = before[tag]
                    row[f"Transition/{tag}/after"] = after[tag]
            self._unwritten.append({"images": state.images, **row})
        self._open = []
        self._first = []

        self._metrics |= metrics
        self._end_recovery(state.images, metrics)

        # The old path goes right after this tick where the clock has reached the end of the fade.
        self._last_alpha = None
        self._images = None
        if state.fading and run.schedule.at(state.images, state.starts).phase == STABLE:
            self._last_alpha = run.alpha["generator"]
            self._images = self._generate_images(run)

        # Last, because a full disk may refuse it.
        self._write_rows()

    @hookimpl
    def after_run(self) -> None:
        """Write the rows that could not be written at the last tick."""
        self._write_rows()

    @hookimpl
    def after_stage(self, run: Run) -> None:
        """Generate the images before the growth."""
        self._images = self._generate_images(run)

    @hookimpl
    def before_stage(self, run: Run, stage: Stage, state: TrainState, continues: bool) -> None:
        """Measure the growth."""
        if self._images is not None and stage.previous is not None and not continues:
            self._measure_jump(run, GROWTH, stage.previous)

            # From here on the metric is expected back near its level before.
            level = divide_by_floor(self._metrics, self.watch)
            self._awaited = None
            if level is not None:
                self._awaited = {"at": state.images, "size": stage.size, "level": level}
            self._metrics = {}

    @hookimpl
    def after_fade(self, run: Run, stage: Stage) -> None:
        """Measure the removal of the old path."""
        if self._images is not None:
            self._measure_jump(run, FADE_END, stage)

    @hookimpl
    def save_state(self) -> dict[str, Any]:
        """Return the open rows, the steps around the switch, and the metrics before it."""
        return {
            "recent": [(list(names), values.cpu()) for names, values in self._recent],
            "first": [(list(names), values.cpu()) for names, values in self._first],
            "open": [dict(row) for row in self._open],
            "metrics": dict(self._metrics),
            "awaited": self._awaited,
            "last_alpha": self._last_alpha,
            "unwritten": [dict(row) for row in self._unwritten],
        }

    @hookimpl
    def load_state(self, run: Run, saved: Mapping[str, Any]) -> None:
        """Restore the saved state; at a fade's last tick, generate again the images of that tick."""
        self._reset()
        self._recent.extend((tuple(names), values) for names, values in saved["recent"])
        self._first = [(tuple(names), values) for names, values in saved["first"]]
        self._open = [dict(row) for row in saved["open"]]
        self._metrics = dict(saved["metrics"])
        self._awaited = saved["awaited"]
        # A branch has a file of its own.
        if not run.is_new_branch:
            self._unwritten = [dict(row) for row in saved["unwritten"]]
        self._last_alpha = saved["last_alpha"]
        if self._last_alpha is not None:
            self._images = self._generate_images(run, self._last_alpha)

    def _write_rows(self) -> None:
        """Write the rows that are complete; those that cannot be written are left for the next tick."""
        while self._unwritten:
            self._rows.append(self._unwritten[0])
            del self._unwritten[0]

    def _generate_images(self, run: Run, alpha: float | None = None) -> dict[str, Tensor]:
        """Return images (count, C, h, w) of G and of its average, at an alpha; None: that of the last step."""
        latents = run.fixed_latents(self.count)
        labels = run.fixed_labels(self.count)
        return {net: run.generate(latents, labels, net == "ema", alpha) for net in ("generator", "ema")}

    def _measure_jump(self, run: Run, event: str, old: Stage) -> None:
        """Open a row for the switch from the images generated before it to those generated now.

        Args:
            run: The run, after the switch.
            event: `GROWTH` or `FADE_END`.
            old: The stage before the switch.
        """
        assert self._images is not None
        stage = run.state.stage
        row: dict[str, Any] = {
            "event": event,
            "at": run.state.images,
            "stage": stage.index,
            "from": old.size,
            "size": stage.size,
            "alpha": run.alpha["generator"] if event == GROWTH else 1.0,
        }

        factor = stage.height // old.height
        for net, after in self._generate_images(run).items():
            before = self._images[net]
            if factor > 1:
                before = run.experiment.image_resampling.up(stage.image_channels, factor)(before)
            row[f"Transition/rms/{net}"] = float((after - before).square().mean().sqrt())
            if self.features is not None:
                jump = measure_feature_jump(self.features(before), self.features(after))
                if jump is not None:
                    row[f"Transition/features/{net}"] = jump

        # The next tick completes the row with the numbers after.
        row["before"] = {**average_steps(self._recent), **self._metrics}
        self._open.append(row)
        self._images = None
        self._last_alpha = None

    def _end_recovery(self, images: int, metrics: Mapping[str, float]) -> None:
        """Complete the row of the recovery that is awaited, if the watched metric is back within its band."""
        level = divide_by_floor(metrics, self.watch)
        if self._awaited is None or level is None or level > self._awaited["level"] + self.band:
            return
        row = {
            "images": images,
            "event": "recovery",
            "at": self._awaited["at"],
            "size": self._awaited["size"],
            "Transition/recovery": images - self._awaited["at"],
        }
        self._unwritten.append(row)
        self._awaited = None


def measure_gradient_norms(state: TrainState) -> dict[str, Tensor]:
    """Return the norms of the last update's gradients over all parameters, 0-dim and on the device.

    They are `Gradient/generator` and `Gradient/discriminator`; a network that holds no gradients has none.
    """
    norms = {}
    for name in ("generator", "discriminator"):
        net: nn.Module = state.network(name)
        gradients = [param.grad for param in net.parameters() if param.grad is not None]
        if gradients:
            norms[f"Gradient/{name}"] = torch.stack(list(torch._foreach_norm(gradients))).norm()
    return norms


def average_steps(steps: Iterable[Step]) -> dict[str, float]:
    """Return the mean of each name over the steps that have it. Waits for the device."""
    values_of: dict[str, list[float]] = {}
    for names, values in steps:
        for name, value in zip(names, values.tolist(), strict=True):
            values_of.setdefault(name, []).append(value)
    return {name: math.fsum(values) / len(values) for name, values in values_of.items()}


def measure_feature_jump(before: Tensor, after: Tensor) -> float | None:
    """Return the jump of features (N, F): the root mean square distance between rows before and after.

    Its unit is the root mean square distance of the rows before from their mean; None where they are all the same.
    """
    spread = (before - before.mean(dim=0)).square().sum(dim=1).mean().sqrt()
    if not spread > 0:
        return None
    return float((after - before).square().sum(dim=1).mean().sqrt() / spread)


def divide_by_floor(metrics: Mapping[str, float], tag: str) -> float | None:
    """Return a metric in units of its noise floor; None where it is missing or not finite, or has no floor above 0."""
    value = metrics.get(tag)
    floor = metrics.get(f"{tag}_floor", 0.0)
    if value is None or not math.isfinite(value) or not floor > 0:
        return None
    return value / floor
