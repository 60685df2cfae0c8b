"""Test that a stage leaves nothing behind. `benchmarks/test_memory.py` prints memory over thousands of steps."""

import functools
import gc
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch

from pggan_kit import Component, hookimpl
from pggan_kit.data.device_feed import Batch, PrefetchFeed, ResidentFeed
from pggan_kit.data.sampler import Data, Sampler
from pggan_kit.training import loop as training
from pggan_kit.training.compiler import Compiler
from pggan_kit.training.non_finite import NonFiniteError
from pggan_kit.training.recording import Recording
from pggan_plugins.losses import Hinge


@pytest.fixture(autouse=True)
def _only_what_is_new() -> None:
    """Leave out of collections, and of counts, what lives before a test: millions of objects, after other tests."""
    gc.collect()
    gc.freeze()


class Watch:
    """A hook with weak references to what should be freed as stages follow each other."""

    def __init__(self) -> None:
        self.gone: dict[str, weakref.ref[Any]] = {}
        self.alive: list[tuple[str, str]] = []
        self.tensors: dict[int, int] = {}

    @hookimpl
    def before_fade(self, run: Any, stage: Any, state: Any) -> None:
        for net in ("generator", "discriminator", "ema"):
            bridge = getattr(state, net).bridge
            self.gone[f"bridge of the {net} at {stage.size}"] = weakref.ref(bridge)
            for name, param in bridge.named_parameters():
                self.gone[f"{name} of the {net}'s bridge at {stage.size}"] = weakref.ref(param)

    @hookimpl
    def after_step(self, stage: Any, state: Any, losses: Any) -> None:
        for name, optimizer in state.optimizers.items():
            self.gone[f"optimizer {name} of {state.phase} {stage.size}"] = weakref.ref(optimizer)
        self.gone[f"losses at {state.images}"] = weakref.ref(next(iter(losses.values())))

    @hookimpl
    def after_fade(self, stage: Any) -> None:
        self.check(f"after the fade of {stage.size}", ("bridge", f"optimizer generator of fade {stage.size}"))

    @hookimpl
    def before_stage(self, run: Any, stage: Any) -> None:
        if stage.previous is not None:
            self.check(f"at {stage.size}", ("bridge", "losses", f"of stable {stage.previous.size}"))

    @hookimpl
    def after_tick(self, stage: Any, state: Any) -> None:
        if state.phase == "stable":
            gc.collect()
            self.tensors[state.images] = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    def check(self, when: str, kinds: tuple[str, ...]) -> None:
        gc.collect()
        left = [name for name, ref in self.gone.items() if ref() is not None]
        self.alive += [(when, name) for name in left if any(kind in name for kind in kinds)]


RICH = [
    "losses.Hinge.penalties = [@penalties.R1()]",
    "train.augmentation = @augmentations.ADA()",
    "optimizers.Adam.lr = @curves.Linear()",
    "curves.Linear.begin = 1e-3",
    "curves.Linear.end = 1e-4",
    "curves.Linear.start_images = -24",
    "train.observers = [@observers.TensorBoard(), @observers.Samples(), @observers.Growth(), @observers.Progress()]",
]


def test_old_bridges_optimizers_and_graphs_are_freed(train: Callable[..., Any]) -> None:
    watch = Watch()
    train(*RICH, plugins=(watch,))
    assert {name.partition(" ")[0] for name in watch.gone} >= {"bridge", "optimizer", "losses"}
    assert not watch.alive


class Reals:
    """What stages hold that is large, as weak references: feeds, images, compiled steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ahead: bool) -> None:
        self.held: list[weakref.ref[Any]] = []
        self.alive: list[Any] = []
        self.threads: list[Any] = []
        self.checks = 0
        self._ahead = ahead
        self._draw = Data.sampler
        monkeypatch.setattr(Data, "sampler", lambda data, stage: self.make_sampler(data, stage))
        monkeypatch.setattr(training, "choose_feed", self.choose_feed)
        monkeypatch.setattr(training, "Compiler", functools.partial(Compiler, translate=self.translate))

    def make_sampler(self, data: Data, stage: Any) -> Sampler:
        """Check that nothing of the last stage is there any more, without help from the collector."""
        self.checks += 1
        self.alive += [ref() for ref in self.held if ref() is not None]
        self.alive += [thread for thread in self.threads if thread.is_alive()]
        self.held = []
        sampler = self._draw(data, stage)
        self.held.append(weakref.ref(sampler))
        return sampler

    def choose_feed(self, sampler: Sampler, device: torch.device, limit: Any) -> Any:
        feed: Any = ResidentFeed(sampler, device)
        if self._ahead:
            feed = PrefetchFeed(sampler, StubCopier())
            feed.batch(0, 4)
            self.threads += feed._thread._threads
        else:
            self.held.append(weakref.ref(feed._images))
        self.held.append(weakref.ref(feed))
        return feed

    def translate(self, recording: Recording, *others: Any) -> Any:
        def run(*tensors: Any) -> Any:
            return recording.graph(*tensors)

        self.held.append(weakref.ref(run))
        return run


class StubCopier:
    """A copier that copies nothing."""

    def begin(self, batch: Batch) -> Batch:
        return batch

    def finish(self, batch: Batch) -> None:
        pass


@pytest.mark.parametrize("ahead", [False, True], ids=["resident", "copied ahead"])
def test_growth_frees_reals_and_compiled_steps_before_there_are_new_ones(
    ahead: bool, train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reals = Reals(monkeypatch, ahead)
    gc.disable()
    try:
        train("schedule.sizes = (4, 8)", "train.compile = 'always'", "train.switch = @switches.Hard()")
    finally:
        gc.enable()
    assert reals.checks == 2
    assert not reals.alive
    assert len(reals.held) >= 4  # of the last stage
    assert not any(thread.is_alive() for thread in reals.threads)  # also once the run is over


class FailingLoss(Hinge):
    """A loss that is not finite three times at one clock."""

    states: ClassVar[list[weakref.ref[Any]]] = []

    @hookimpl
    def before_stage(self, run: Any, state: Any) -> None:
        self.run = run
        self.states.append(weakref.ref(state))

    def generator(self, fake: Any, real: Any) -> Any:
        if self.run.state.images == 12 and self.run.state.rewinds < 3:
            raise NonFiniteError("generator", ("hinge",))
        return super().generator(fake, real)


def test_going_back_leaves_nothing_behind(train: Callable[..., Any]) -> None:
    """Check that the states that failed are freed."""
    lines = ["train.loss = @losses.Failing()", "train.non_finite = 'rewind'"]
    run = train(*lines, plugins=(Component("losses", "Failing", FailingLoss),))
    assert run.state.rewinds == 3
    gc.collect()
    assert {id(ref()) for ref in FailingLoss.states if ref() is not None} == {id(run.state)}
    assert [ref() for ref in FailingLoss.states].count(None) >= 3


def test_the_number_of_tensors_does_not_grow_within_a_stage(train: Callable[..., Any]) -> None:
    watch = Watch()
    train(*RICH, "schedule.sizes = (4, 8)", "schedule.stable_images = {4: 8, 8: 40}", plugins=(watch,))
    last = [count for images, count in sorted(watch.tensors.items()) if images > 32]
    assert len(last) >= 3 and max(last) - min(last) <= 2, watch.tensors
