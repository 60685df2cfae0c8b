"""What a switch does at the moment it happens."""

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

GROWTH, FADE_END = "growth", "fade_end"
METRICS = "Metrics/"

Step = tuple[tuple[str, ...], Tensor]
"""One step's numbers: their names, and (K,) values that stay on the device until somebody may wait for it."""


class TransitionShock:
    """`transitions.jsonl` in the run's directory: a row for each switch, written at the first tick after it.

    A switch is a growth (`event: growth`), or the moment when the old path goes at the end of a fade (`fade_end`). `at`
    is its clock, `from` and `size` are the sizes before and after, `images` is the clock of the tick. Its numbers have
    tags, which `observers.TensorBoard` shows:

    * `Transition/rms/generator`, `Transition/rms/ema`: how far the images of fixed latents jump: the root mean square
      of their difference, in [0, 2]; the smaller ones are brought to the new size as the fade does it.
    * `Transition/features/...`: the same in feature space, in units of how far the images before lay from their mean.
    * `Transition/<tag>/before` and `/after`: means of all losses, scores and gradient norms (`Gradient/generator`,
      `Gradient/discriminator`; what of an update is left in the networks, so not where losses are scaled, and none
      where an update keeps none) over the last and the first `steps` steps; of `Metrics/*` the last value before and
      the first after.

    When the watched metric is back within its noise band, another row follows (`event: recovery`) with
    `Transition/recovery`: the images that it took from the growth on, in whole ticks. It is back when
    `value / floor <= value_before / floor_before + band`: sizes are compared in units of their own noise floor. A stage
    that ends before has no such row.

    Args:
        count: images of fixed latents.
        features: a feature space to measure in, too.
        steps: how many steps before and after make a mean.
        watch: the metric, a distance that comes with `<watch>_floor`.
        band: how many noise floors above its level before are still within the band, above 0.

    Raises:
        ValueError: `count` or `steps` below 1, `watch` no metric's tag, or `band` not above 0.
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
        self.count = count
        self.features = features
        self.steps = steps
        self.watch = watch
        self.band = band
        self._forget()

    def _forget(self) -> None:
        self._images: dict[str, Tensor] | None = None
        self._last_alpha: float | None = None
        self._recent: deque[Step] = deque(maxlen=self.steps)
        self._metrics: dict[str, float] = {}
        self._open: list[dict[str, Any]] = []
        self._first: list[Step] = []
        self._awaited: dict[str, Any] | None = None

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Forget an earlier run; cut the rows of a resumed one back to its checkpoint."""
        self._forget()
        self._rows = JsonLines(run.directory / "transitions.jsonl")
        if run.resumed and self._rows.path.exists():
            self._rows.cut(run.state.images, run.files.warn)

    @hookimpl
    def after_step(self, run: Run, state: TrainState, losses: Mapping[str, Tensor]) -> None:
        """Keep the step's numbers, on the device."""
        values = {**losses, **({} if run.experiment.precision == "float16" else gradient_norms(state))}
        if not values:
            return
        step = tuple(values), torch.stack([value.detach().float() for value in values.values()])
        self._recent.append(step)
        if self._open and len(self._first) < self.steps:
            self._first.append(step)

    @hookimpl
    def after_tick(self, run: Run, state: TrainState, stats: Mapping[str, float]) -> None:
        """Write what is known now; at a fade's last tick, draw what it has come to."""
        metrics = {tag: value for tag, value in stats.items() if tag.startswith(METRICS)}
        after = {**means(self._first), **metrics}
        for row in self._open:
            before = row.pop("before")
            for tag in sorted(tag for tag in before.keys() & after.keys() if not tag.endswith("_floor")):
                row |= {f"Transition/{tag}/before": before[tag], f"Transition/{tag}/after": after[tag]}
            self._rows.append({"images": state.images, **row})
        self._open, self._first = [], []
        self._metrics |= metrics
        self._recovered(state.images, metrics)
        ends = state.fading and run.schedule.at(state.images, state.starts).phase == STABLE
        self._last_alpha = run.alpha["generator"] if ends else None
        self._images = self._drawn(run) if ends else None

    @hookimpl
    def after_stage(self, run: Run) -> None:
        """Draw what the stage has come to."""
        self._images = self._drawn(run)

    @hookimpl
    def before_stage(self, run: Run, stage: Stage, state: TrainState) -> None:
        """Measure the growth; where a run goes on from a fade's last tick, draw again what was drawn there."""
        if self._last_alpha is not None and self._images is None:
            self._images = self._drawn(run, self._last_alpha)
        elif self._images is not None and stage.previous is not None:
            self._measure(run, GROWTH, stage.previous)
            level = in_floors(self._metrics, self.watch)
            self._awaited = None if level is None else {"at": state.images, "size": stage.size, "level": level}
            self._metrics = {}

    @hookimpl
    def after_fade(self, run: Run, stage: Stage) -> None:
        """Measure the loss of the old path."""
        if self._images is not None:
            self._measure(run, FADE_END, stage)

    @hookimpl
    def save_state(self) -> dict[str, Any]:
        """What is still open, and the last steps."""
        return {
            "recent": [(list(names), values.cpu()) for names, values in self._recent],
            "first": [(list(names), values.cpu()) for names, values in self._first],
            "open": [dict(row) for row in self._open],
            "metrics": dict(self._metrics),
            "awaited": self._awaited,
            "last_alpha": self._last_alpha,
        }

    @hookimpl
    def load_state(self, saved: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._forget()
        self._recent.extend((tuple(names), values) for names, values in saved["recent"])
        self._first = [(tuple(names), values) for names, values in saved["first"]]
        self._open = [dict(row) for row in saved["open"]]
        self._metrics, self._awaited = dict(saved["metrics"]), saved["awaited"]
        self._last_alpha = saved["last_alpha"]

    def _drawn(self, run: Run, alpha: float | None = None) -> dict[str, Tensor]:
        """Return images of G and of its average, at an alpha; None: that of the last step."""
        latents = run.fixed_latents(self.count)
        labels = run.fixed_labels(self.count)
        return {net: run.generate(latents, labels, net == "ema", alpha) for net in ("generator", "ema")}

    def _measure(self, run: Run, event: str, old: Stage) -> None:
        """Open a row for the switch from the images kept to those drawn now."""
        assert self._images is not None
        stage, row = run.state.stage, {"event": event, "at": run.state.images, "stage": run.state.stage.index}
        row |= {"from": old.size, "size": stage.size, "alpha": run.alpha["generator"] if event == GROWTH else 1.0}
        factor = stage.height // old.height
        for net, new in self._drawn(run).items():
            before = self._images[net]
            if factor > 1:
                before = run.experiment.image_resampling.up(stage.image_channels, factor)(before)
            row[f"Transition/rms/{net}"] = float((new - before).square().mean().sqrt())
            moved = None if self.features is None else feature_jump(self.features(before), self.features(new))
            if moved is not None:
                row[f"Transition/features/{net}"] = moved
        row["before"] = {**means(self._recent), **self._metrics}
        self._open.append(row)
        self._images = self._last_alpha = None

    def _recovered(self, images: int, metrics: Mapping[str, float]) -> None:
        level = in_floors(metrics, self.watch)
        if self._awaited is None or level is None or level > self._awaited["level"] + self.band:
            return
        row = {key: self._awaited[key] for key in ("at", "size")}
        took = images - self._awaited["at"]
        self._rows.append({"images": images, "event": "recovery", **row, "Transition/recovery": took})
        self._awaited = None


def gradient_norms(state: TrainState) -> dict[str, Tensor]:
    """`Gradient/generator`, `Gradient/discriminator`: norms over all parameters of the last update's gradients, 0-dim
    and on the device; without those of a network that holds none."""
    norms = {}
    for name in ("generator", "discriminator"):
        net: nn.Module = state.network(name)
        gradients = [param.grad for param in net.parameters() if param.grad is not None]
        if gradients:
            norms[f"Gradient/{name}"] = torch.stack(list(torch._foreach_norm(gradients))).norm()
    return norms


def means(steps: Iterable[Step]) -> dict[str, float]:
    """Of each name over those steps that have it. Waits for the device."""
    seen: dict[str, list[float]] = {}
    for names, values in steps:
        for name, value in zip(names, values.tolist(), strict=True):
            seen.setdefault(name, []).append(value)
    return {name: math.fsum(values) / len(values) for name, values in seen.items()}


def feature_jump(before: Tensor, after: Tensor) -> float | None:
    """Root mean square distance between rows of (N, F), over that of the rows before from their mean; None where those
    are all the same."""
    spread = (before - before.mean(dim=0)).square().sum(dim=1).mean().sqrt()
    return float((after - before).square().sum(dim=1).mean().sqrt() / spread) if spread > 0 else None


def in_floors(metrics: Mapping[str, float], tag: str) -> float | None:
    """A metric in units of its noise floor; None where it or a floor above 0 is missing."""
    value, floor = metrics.get(tag), metrics.get(f"{tag}_floor", 0.0)
    return value / floor if value is not None and math.isfinite(value) and floor > 0 else None
