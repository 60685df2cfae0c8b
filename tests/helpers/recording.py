"""A plugin object that notes every hook of a run, and what it should note, told from the schedule alone."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from pggan_kit import hookimpl

Event = tuple[Any, ...]


class Recorder:
    """Implements every hook with all its arguments, checks those, and notes (hook, size, clock) or (hook,).

    Attributes:
        events: all hooks but the questions about alpha.
        alphas: the questions about alpha, without repetitions: (size, progress, clock, path).
        calls: how often each hook fired.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.alphas: list[Event] = []
        self.calls: dict[str, int] = {}
        self.loaded: Any = None
        self.resumed = False
        self.continued: list[bool] = []

    def note(self, hook: str, *details: Any) -> None:
        self.calls[hook] = self.calls.get(hook, 0) + 1
        self.events.append((hook, *details))

    def note_stage(self, hook: str, run: Any, stage: Any, state: Any) -> None:
        assert state is run.state and stage is state.stage is run.schedule.stages[stage.index]
        self.note(hook, stage.size, state.images)

    @hookimpl
    def components(self) -> list[Any]:
        self.calls["components"] = self.calls.get("components", 0) + 1
        return []

    @hookimpl
    def before_run(self, run: Any) -> None:
        assert run.directory.is_dir() and (run.directory / "run.json").is_file()
        self.resumed = run.resumed
        self.note("before_run")

    @hookimpl
    def after_run(self, run: Any, result: Any) -> None:
        assert result["images"] == run.state.images >= run.schedule.total and result["steps"] == run.state.steps
        assert 0 <= result["update_seconds"] <= result["seconds"]
        if "after_step" in self.calls:
            assert Path(result["checkpoint"]).is_file() and f"{run.state.images:012d}" in result["checkpoint"]
        self.note("after_run")

    @hookimpl
    def on_error(self, run: Any, error: BaseException) -> None:
        self.note("on_error", type(error).__name__)

    @hookimpl
    def before_stage(self, run: Any, stage: Any, state: Any, continues: bool) -> None:
        images = run.generate(run.fixed_latents(2), average=False)
        assert images.shape == (2, stage.image_channels, stage.height, stage.width)
        trained = {id(p) for o in state.optimizers.values() for g in o.param_groups for p in g["params"]}
        assert trained == {id(p) for net in (state.generator, state.discriminator) for p in net.parameters()}
        self.continued.append(continues)
        self.note_stage("before_stage", run, stage, state)

    @hookimpl
    def before_fade(self, run: Any, stage: Any, state: Any, continues: bool) -> None:
        assert continues == self.continued[-1]
        assert state.generator.bridge is not None or state.discriminator.bridge is not None
        self.note_stage("before_fade", run, stage, state)

    @hookimpl
    def after_fade(self, run: Any, stage: Any, state: Any) -> None:
        assert state.generator.bridge is state.discriminator.bridge is state.ema.bridge is None
        self.note_stage("after_fade", run, stage, state)

    @hookimpl
    def fade_alpha(self, stage: Any, progress: float, images: int, path: str) -> None:
        self.calls["fade_alpha"] = self.calls.get("fade_alpha", 0) + 1
        question = (stage.size, progress, images, path)
        if question not in self.alphas:
            self.alphas.append(question)

    @hookimpl
    def should_advance(self, run: Any, stage: Any, state: Any) -> None:
        self.note_stage("should_advance", run, stage, state)

    @hookimpl
    def after_step(self, run: Any, stage: Any, state: Any, losses: Any) -> None:
        assert losses and all(isinstance(v, Tensor) and v.ndim == 0 and not v.requires_grad for v in losses.values())
        self.note_stage("after_step", run, stage, state)

    @hookimpl
    def measure_tick(self, run: Any, stage: Any, state: Any, tick: Any) -> dict[str, float]:
        assert tick.before < tick.images == state.images and tick.stage is stage
        self.note_stage("measure_tick", run, stage, state)
        return {"Recorder/ticks": self.calls["measure_tick"]}

    @hookimpl
    def should_end(self, run: Any, stage: Any, state: Any, stats: Any) -> None:
        assert stats["Recorder/ticks"] == self.calls["measure_tick"]
        self.note_stage("should_end", run, stage, state)

    @hookimpl
    def after_tick(self, run: Any, stage: Any, state: Any, stats: Any, tick: Any) -> None:
        assert tick.images == state.images and tick.total == run.schedule.total
        assert stats["Recorder/ticks"] == self.calls["measure_tick"]
        assert all(isinstance(value, (int, float)) for value in stats.values())
        assert stats["Progress/size"] == stage.height and any(tag.startswith("Loss/") for tag in stats)
        self.note_stage("after_tick", run, stage, state)

    @hookimpl
    def after_stage(self, run: Any, stage: Any, state: Any) -> None:
        self.note_stage("after_stage", run, stage, state)

    @hookimpl
    def save_state(self, run: Any) -> dict[str, Any]:
        self.note("save_state", run.state.images)
        return {"at": run.state.images, "nested": [(1, "two")]}

    @hookimpl
    def load_state(self, run: Any, saved: Any) -> None:
        self.loaded = saved
        self.note("load_state", saved["at"])


def expected(sizes: Sequence[int], fade: int, stable: int, batch: int, tick: int, soft: bool = True) -> Iterator[Event]:
    """The events of a run of one process, as `hookspecs.py` tells them."""
    # The clock, and a stage after the other.
    images = last_tick = 0
    total = len(sizes) * stable + (len(sizes) - 1) * fade
    yield ("before_run",)
    for index, height in enumerate(sizes):
        size, start, last = f"{height}x{height}", images, index == len(sizes) - 1
        fading = index > 0 and fade > 0
        fade_end = start + (fade if index else 0)
        end = total if last else fade_end + stable
        yield ("before_stage", size, images)
        if fading and soft:
            yield ("before_fade", size, images)
        over = end == start and not last
        if images == 0 and not over:
            yield ("save_state", 0)
        while not over:
            # A step, and the tick that may follow it.
            images += batch
            yield ("after_step", size, images)
            over = images >= total
            if not over and not last:
                yield ("should_advance", size, images)
                over = images >= end
            fade_over = fading and (over or images >= fade_end)
            early = any(last_tick < tick / share <= images for share in (16, 8, 4, 2) if tick / share >= 4 * batch)
            if over or fade_over or early or images // tick > last_tick // tick:
                last_tick = images
                for hook in ("measure_tick", "after_tick", "should_end"):
                    yield (hook, size, images)
                yield ("save_state", images)
            if fade_over:
                fading = False
                if soft:
                    yield ("after_fade", size, images)
        yield ("after_stage", size, images)
        if images >= total:
            break
    yield ("after_run",)


def expected_alphas(sizes: Sequence[int], fade: int, stable: int, batch: int) -> list[Event]:
    """The questions about alpha, where budgets are multiples of the batch size."""
    found: list[Event] = []
    images = stable
    for height in sizes[1:]:
        for spent in range(0, fade, batch):
            found += [
                (f"{height}x{height}", spent / fade, images + spent, path)
                for path in ("generator", "discriminator", "reals")
            ]
        images += fade + stable
    return found
