"""Broken optimizers, switches and updates fail their suites, with messages that say what is wrong."""

from __future__ import annotations

import copy
import itertools
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from helpers.defects import Defect, Defects, Half, HalvesOld, Ramp, check_reported, make_suite, name_case
from torch import Tensor, nn

import pggan_kit.testing as suites
from pggan_kit import DuePenalty, hookimpl
from pggan_kit.schedule import Position
from pggan_kit.testing.memories import LEFT_OUT, read_memory
from pggan_kit.testing.toys import ToyOptimizer, ToyUpdate

DEFECTS = Defects()
defect = DEFECTS.register


def optimizer_defect(method: str, says: str) -> Callable[[Any], Any]:
    return defect(suites.OptimizerSuite, method, says)


@optimizer_defect("test_holds_all_parameters", "some would never learn")
class ForgetsTheLast(ToyOptimizer):
    def build(self, params: Iterable[nn.Parameter], stage: Any) -> torch.optim.Optimizer:
        return super().build(list(params)[:-1], stage)


@optimizer_defect("test_holds_all_parameters", "a second call, with other parameters, builds does not hold")
class BuildsOnce(ToyOptimizer):
    built: Any = None

    def build(self, params: Iterable[nn.Parameter], stage: Any) -> torch.optim.Optimizer:
        if self.built is None:
            self.built = super().build(params, stage)
        optimizer: torch.optim.Optimizer = self.built
        return optimizer


@optimizer_defect("test_descends", "has not become smaller")
class Climbs(ToyOptimizer):
    def build(self, params: Iterable[nn.Parameter], stage: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=0.01, maximize=True)


class CountsElsewhere(torch.optim.SGD):
    count = 0

    def step(self, closure: Any = None) -> Any:
        self.count += 1
        self.param_groups[0]["lr"] = 0.1 / self.count
        return super().step(closure)


@optimizer_defect("test_state_can_be_carried_over", "it keeps state elsewhere, which is lost when a network grows")
class HiddenState(ToyOptimizer):
    def build(self, params: Iterable[nn.Parameter], stage: Any) -> torch.optim.Optimizer:
        return CountsElsewhere(params, lr=0.1)


@optimizer_defect("test_learning_rate_per_stage", "the learning rate at 8x8 is 0.001")
class FirstRateOnly(ToyOptimizer):
    def __init__(self, lr: Any = 0.1) -> None:
        self.lr = lr[4] if isinstance(lr, Mapping) else lr

    def build(self, params: Iterable[nn.Parameter], stage: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=self.lr)


class TensorRate(ToyOptimizer):
    """A sound optimizer whose learning rate is a tensor of single precision."""

    def __init__(self, lr: Any = 0.1) -> None:
        self.lr = lr

    def build(self, params: Iterable[nn.Parameter], stage: Any) -> torch.optim.Optimizer:
        lr = self.lr[stage.height] if isinstance(self.lr, Mapping) else self.lr
        return torch.optim.Adam(list(params), lr=torch.tensor(lr), foreach=False)


def test_a_learning_rate_may_be_a_tensor() -> None:
    suite = make_suite(suites.OptimizerSuite, TensorRate)
    suite.test_learning_rate_per_stage()
    suite.test_state_survives_a_file()


class HalvesMomentum(torch.optim.SGD):
    def state_dict(self) -> dict[str, Any]:
        saved = super().state_dict()
        rounded = {key: {"momentum_buffer": value["momentum_buffer"].half()} for key, value in saved["state"].items()}
        return {**saved, "state": rounded}


@optimizer_defect("test_state_survives_a_file", "does not go on as the one that saved it")
class RoundsItsState(ToyOptimizer):
    def build(self, params: Iterable[nn.Parameter], stage: Any) -> torch.optim.Optimizer:
        return HalvesMomentum(params, lr=0.05, momentum=0.9)


class LosesItsRate(torch.optim.SGD):
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.param_groups[0]["lr"] = 0.3


@optimizer_defect("test_state_survives_a_file", "a setting of a group is lost")
class LosesItsGroups(ToyOptimizer):
    def build(self, params: Iterable[nn.Parameter], stage: Any) -> torch.optim.Optimizer:
        return LosesItsRate(params, lr=0.05, momentum=0.9)


TURNS = itertools.count()


@optimizer_defect("test_begins_each_run_afresh", "a second run with one optimizers.FallsForEver does not end where")
class FallsForEver(ToyOptimizer):
    def __init__(self) -> None:
        self.lr = 0.05

    def build(self, params: Iterable[nn.Parameter], stage: Any) -> torch.optim.Optimizer:
        self.lr /= 2
        return torch.optim.SGD(params, lr=self.lr)


def curve_defect(value: Callable[[Any], Any], method: str, says: str) -> None:
    class Bent:
        def at(self, position: Position) -> Any:
            return value(position)

    DEFECTS.append(Defect(suites.CurveSuite, Bent, method, says))


curve_defect(
    lambda position: torch.tensor(0.5),
    "test_values_are_finite_numbers",
    r"curves\.Bent is a Tensor at images 0 \(4x4, stable\); it must be a plain number",
)
curve_defect(lambda position: None, "test_values_are_finite_numbers", "is a NoneType at images 0")
curve_defect(
    lambda position: 1 / (position.images - 36) if position.images != 36 else math.inf,
    "test_values_are_finite_numbers",
    r"is inf at images 36 \(8x8, stable\); it must be finite",
)
curve_defect(
    lambda position: next(TURNS),
    "test_depends_on_the_position_alone",
    r"curves\.Bent is \d+ at .* is asked again",
)


@defect(suites.CurveSuite, "test_depends_on_the_position_alone", "is asked again: it must depend on the position alone")
class LastPlace:
    """The images since it was asked last."""

    def __init__(self) -> None:
        self.last = 0

    def at(self, position: Position) -> float:
        spent = position.images - self.last
        self.last = position.images
        return spent


@defect(suites.UpdateSuite, "test_penalties", r"another weight where the weight is a curve: multiply its value by")
class TakesTheFirstWeight(ToyUpdate):
    """An update that gives a penalty whose weight moves the weight 1."""

    def step(self, ctx: Any) -> dict[str, Tensor]:
        ask = ctx.due
        ctx.due = lambda penalties: [give_weight_1(each) if each.moves else each for each in ask(penalties)]
        return super().step(ctx)


def give_weight_1(due: Any) -> Any:
    penalty = copy.copy(due.penalty)
    penalty.weight = 1.0
    return due._replace(penalty=penalty, moves=False)


def switch_defect(alpha: Callable[[float], Any], method: str, says: str) -> None:
    class Broken:
        @hookimpl
        def fade_alpha(self, progress: float) -> Any:
            return alpha(progress)

    DEFECTS.append(Defect(suites.SwitchSuite, Broken, method, says))


switch_defect(
    lambda p: 1.2 * p, "test_stays_between_0_and_1", r"gave alpha 1\.0\d* for the generator at images 142; it lies in"
)
switch_defect(lambda p: 0.9 * p, "test_ends_at_1", r"alpha of the generator ends at 0\.9, not 1: the network jumps")
switch_defect(
    lambda p: 1 - p if p < 1 else 1.0, "test_never_goes_back", "alpha of the generator falls after progress 0"
)
switch_defect(lambda p: next(TURNS) % 2, "test_ends_at_1", "for the same question")
switch_defect(torch.tensor, "test_stays_between_0_and_1", "fade_alpha answers with a Tensor; it must be a plain number")


def average_defect(method: str, says: str) -> Callable[[Any], Any]:
    return defect(suites.AverageSuite, method, says)


@average_defect("test_names_are_its_own", r"averages must name an average by a letter, .* not by '0\.05'")
class HasAWidthForAName(Half):
    names = ("0.05",)


@average_defect("test_names_are_its_own", "has two averages with the name half")
class HasOneNameTwice(Half):
    names = ("half", "half")


@average_defect(
    "test_shares_lie_between_0_and_1", r"gives the shares \(1\.0001,\) .* for a piece of age 100: there must be"
)
class Overshoots(Half):
    def compute_shares(self, position: Any, age: int, images: int) -> Sequence[float]:
        return (1.0001 if age >= 100 else 0.5,)


@average_defect("test_shares_depend_on_the_arguments_alone", "gives other shares when it is asked again")
class CountsItsUpdates(Half):
    def compute_shares(self, position: Any, age: int, images: int) -> Sequence[float]:
        return (1 / (2 + next(TURNS)),)


@average_defect("test_each_name_follows", "the average half of averages.StaysAtTheStart has the share 0 at every age")
class StaysAtTheStart(Half):
    def compute_shares(self, position: Any, age: int, images: int) -> Sequence[float]:
        return (0.0,)


@average_defect("test_resumes_exactly", "AveragesMoreAndMore that is resumed at images 8 does not end where")
class AveragesMoreAndMore(Half):
    """It counts in place of asking the clock, and saves nothing."""

    def __init__(self) -> None:
        self.count = 0

    def compute_shares(self, position: Any, age: int, images: int) -> Sequence[float]:
        self.count += 1
        return (1 / self.count,)


@defect(
    suites.SwitchSuite, "test_trains_through_a_fade", r"switches\.SaysNo: should_advance\(\) returns 'no': return True"
)
class SaysNo(Ramp):
    @hookimpl
    def should_advance(self) -> Any:
        return "no"


@defect(suites.SwitchSuite, "test_trains_through_a_fade", "never grows")
class NeverGrows(Ramp):
    @hookimpl
    def should_advance(self) -> bool:
        return False


class Counts(Ramp):
    """A sound switch that ends a stage after five steps. Its counter is reset in `before_stage`."""

    @hookimpl
    def before_run(self) -> None:
        self.count = 0

    @hookimpl
    def before_stage(self) -> None:
        self.count = 0

    @hookimpl
    def after_step(self) -> None:
        self.count += 1

    @hookimpl
    def should_advance(self) -> bool:
        return self.count >= 5

    @hookimpl
    def save_state(self) -> dict[str, Any]:
        return {"count": self.count}

    @hookimpl
    def load_state(self, saved: Mapping[str, Any]) -> None:
        self.count = saved["count"]


class CountsTicks(Counts):
    """A sound switch that ends a stage after its first tick, so at the step after it."""

    @hookimpl
    def after_step(self) -> None: ...

    @hookimpl
    def after_tick(self) -> None:
        self.count += 5


class FadesByItsState(Counts):
    """A sound switch whose alpha is a counter's."""

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        return min(1.0, self.count / 2) if 0 < progress < 1 else progress

    @hookimpl
    def should_advance(self) -> None: ...


class OncePerStage(Ramp):
    """A sound switch that changes a weight as a stage begins, and not where it continues."""

    @hookimpl
    def before_stage(self, state: Any, continues: bool) -> None:
        if not continues:
            with torch.no_grad():
                state.generator.to_image.bias.add_(0.1)


@pytest.mark.parametrize("switch", [Counts, CountsTicks, FadesByItsState, OncePerStage])
def test_a_switch_that_is_reset_as_a_stage_begins_resumes_exactly(switch: type) -> None:
    suite = make_suite(suites.SwitchSuite, switch)
    suite.test_resumes_exactly()
    suite.test_stops_exactly()


@defect(suites.SwitchSuite, "test_resumes_exactly", r"ForgetsItsCount that is resumed at images 16 does not end where")
class ForgetsItsCount(Counts):
    """Its count is lost; only a checkpoint within the first stage shows it, none within the fade."""

    @hookimpl
    def load_state(self, saved: Mapping[str, Any]) -> None: ...


@defect(suites.SwitchSuite, "test_stops_exactly", r"stopped and resumed after each step does not end where")
class ForgetsBetweenTicks(Counts):
    """It saves what each tick has counted, and not the steps since."""

    @hookimpl
    def before_run(self) -> None:
        self.count = self.ticked = 0

    @hookimpl
    def after_tick(self) -> None:
        self.ticked = self.count

    @hookimpl
    def save_state(self) -> dict[str, Any]:
        return {"count": self.ticked}


@defect(
    suites.SwitchSuite, "test_stops_exactly", r"ForgetsWhatItSaw\.seen is \d at the end of a run without a break, and"
)
class ForgetsWhatItSaw(Ramp):
    """It counts ticks, of which only a longer run has so many that they decide."""

    def __init__(self) -> None:
        self.seen = 0

    @hookimpl
    def before_run(self) -> None:
        self.seen = 0

    @hookimpl
    def after_tick(self) -> None:
        self.seen += 1

    @hookimpl
    def should_advance(self) -> bool | None:
        return True if self.seen >= 100 else None


class Slotted:
    """An object with a counter in a slot."""

    __slots__ = ("n",)

    def __init__(self, n: int) -> None:
        self.n = n


class ForgetsInPlaces(Ramp):
    """It counts ticks in what holds a number in another way than an attribute of its own."""

    def make_counter(self) -> Any:
        return deque([0])

    def count(self) -> None:
        self.counter[0] += 1

    @hookimpl
    def before_run(self) -> None:
        self.counter = self.make_counter()

    @hookimpl
    def after_tick(self) -> None:
        self.count()


FORGOTTEN = r"\.counter is .* at the end of a run without a break, and"


class ForgetsItsDeque(ForgetsInPlaces):
    pass


class ForgetsItsArray(ForgetsInPlaces):
    def make_counter(self) -> Any:
        return np.zeros(1)


class ForgetsItsNamespace(ForgetsInPlaces):
    def make_counter(self) -> Any:
        return SimpleNamespace(n=[Slotted(0)])

    def count(self) -> None:
        self.counter.n[0].n += 1


class ForgetsItsRandomNumbers(ForgetsInPlaces):
    """It draws from a generator of its own, whose state it does not save."""

    def make_counter(self) -> Any:
        return torch.Generator().manual_seed(0)

    def count(self) -> None:
        torch.rand(1, generator=self.counter)


class ForgetsNumPysRandomNumbers(ForgetsInPlaces):
    def make_counter(self) -> Any:
        return np.random.default_rng(0)

    def count(self) -> None:
        self.counter.random()


class ForgetsNumPysOldRandomNumbers(ForgetsNumPysRandomNumbers):
    def make_counter(self) -> Any:
        return np.random.RandomState(0)

    def count(self) -> None:
        self.counter.normal()  # of two that it draws, it keeps one


class ForgetsPythonsRandomNumbers(ForgetsInPlaces):
    def make_counter(self) -> Any:
        return random.Random(0)

    def count(self) -> None:
        self.counter.random()


class SlottedRamp:
    """A switch without a dict, whose count is in a slot."""

    __slots__ = ("counter",)

    def __init__(self) -> None:
        self.counter = 0

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        return progress

    @hookimpl
    def before_run(self) -> None:
        self.counter = 0

    @hookimpl
    def after_tick(self) -> None:
        self.counter += 1


@pytest.mark.parametrize("switch", [*ForgetsInPlaces.__subclasses__(), ForgetsNumPysOldRandomNumbers, SlottedRamp])
def test_what_is_forgotten_is_found_wherever_it_is_held(switch: type[Any]) -> None:
    """By the comparison at the end of `test_stops_exactly`: of an object that has seen a tick, and one that has not."""
    suite = make_suite(suites.SwitchSuite, switch)
    unbroken = switch()
    resumed = switch()
    unbroken.before_run()
    resumed.before_run()
    suite.compare_memories(read_memory(unbroken), read_memory(resumed))
    unbroken.after_tick()
    with pytest.raises(AssertionError, match=FORGOTTEN):
        suite.compare_memories(read_memory(unbroken), read_memory(resumed))


def test_what_a_module_of_the_same_package_defines_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = Ramp()
    ramp.window = Slotted(3)  # type: ignore[attr-defined]
    monkeypatch.setattr(Slotted, "__module__", "package.windows")
    for own, wanted in (("package.ramps", {"n": 3}), ("package", LEFT_OUT), ("other.ramps", LEFT_OUT)):
        monkeypatch.setattr(Ramp, "__module__", own)
        assert read_memory(ramp) == {"window": wanted}


class RemembersItsProcess(Ramp):
    """A sound switch that holds what differs from run to run, and what is not equal to itself."""

    @hookimpl
    def before_run(self, run: Any) -> None:
        self.log = {"path": str(run.directory / "mine.txt"), "began": time.perf_counter()}
        self.worst = torch.tensor(math.nan)

    @hookimpl
    def before_stage(self, state: Any) -> None:
        self.scales = {state.generator: 1.0}


def test_what_differs_from_run_to_run_need_not_be_saved() -> None:
    suite = make_suite(suites.SwitchSuite, RemembersItsProcess)
    suite.test_stops_exactly()
    suite.test_keeps_nothing_in_its_class()


class Memorizes(Ramp):
    """A sound switch with a cache of answers, which a process fills for itself, and another one for all its objects."""

    shared: ClassVar[dict[float, float]] = {}

    @hookimpl
    def before_run(self) -> None:
        self.cache: dict[float, float] = {}

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        self.shared[progress] = progress
        return self.cache.setdefault(progress, progress)


def test_what_is_the_process_s_own_is_named_by_the_suite() -> None:
    suite = make_suite(suites.SwitchSuite, Memorizes)
    with pytest.raises(AssertionError, match=r"Memorizes\.cache is .* own_to_process = \('cache',\)$"):
        suite.test_stops_exactly()
    Memorizes.shared.clear()
    suite = make_suite(suites.SwitchSuite, Memorizes, own_to_process=("cache", "shared"))
    suite.test_stops_exactly()
    suite.test_keeps_nothing_in_its_class()


@defect(
    suites.SwitchSuite,
    "test_keeps_nothing_in_its_class",
    r"changes SeesAllRuns\.seen, which belongs to the class.*make it in before_run \(self\.seen = ",
)
class SeesAllRuns(Ramp):
    seen: ClassVar[list[int]] = []

    @hookimpl
    def after_tick(self, state: Any) -> None:
        self.seen.append(state.images)


class NumbersItsRuns(Ramp):
    """It counts in its class, where only the class that it inherits from names the number."""

    runs = 0

    @hookimpl
    def before_run(self) -> None:
        type(self).runs += 1


@defect(suites.SwitchSuite, "test_keeps_nothing_in_its_class", r"changes CountsForOthers\.runs, which belongs to")
class CountsForOthers(NumbersItsRuns):
    pass


class PlansEachStage(Ramp):
    """A sound switch that makes the curve of each stage once, as a run begins."""

    @hookimpl
    def before_run(self, run: Any) -> None:
        self.powers = {stage: 1.0 + stage.index for stage in run.schedule.stages}

    @hookimpl
    def fade_alpha(self, stage: Any, progress: float) -> float:
        return float(progress ** self.powers[stage])


@pytest.mark.parametrize("switch", [PlansEachStage, FadesByItsState])
def test_a_switch_is_asked_for_alpha_after_a_run_has_begun(switch: type) -> None:
    suite = make_suite(suites.SwitchSuite, switch)
    suite.test_stays_between_0_and_1()
    suite.test_ends_at_1()
    suite.test_never_goes_back()


@defect(suites.AugmentationSuite, "test_stops_exactly", FORGOTTEN)
class AugmentsLater:
    """An augmentation that would begin after many ticks."""

    def __init__(self) -> None:
        self.counter = 0

    @hookimpl
    def before_run(self) -> None:
        self.counter = 0

    @hookimpl
    def after_tick(self) -> None:
        self.counter += 1

    def __call__(self, images: Tensor) -> Tensor:
        return images * (2.0 if self.counter >= 100 else 1.0)


@defect(suites.SwitchSuite, "test_resumes_exactly", "does not end where one without a break does")
class ChangesTwice(Ramp):
    """It changes a weight where a stage continues, too."""

    @hookimpl
    def before_stage(self, state: Any) -> None:
        with torch.no_grad():
            state.generator.to_image.bias.add_(0.1)


def update_defect(method: str, says: str) -> Callable[[Any], Any]:
    return defect(suites.UpdateSuite, method, says)


@update_defect("test_optimizers", "no optimizer holds the generator's")
class OnlyDiscriminator(ToyUpdate):
    def optimizers(self, experiment: Any, stage: Any, generator: Any, discriminator: Any) -> dict[str, Any]:
        return {"D": super().optimizers(experiment, stage, generator, discriminator)["D"]}


@update_defect("test_changes_weights_in_minimise_alone", "changes the generator's weights outside ctx.minimise")
class ChangesWeightsItself(ToyUpdate):
    def step(self, ctx: Any) -> dict[str, Tensor]:
        result = super().step(ctx)
        with torch.no_grad():
            ctx._state.generator.to_image.bias += 0.1
        return result


@update_defect("test_changes_weights_in_minimise_alone", "'G' changes nothing of the discriminator")
class WrongOptimizer(ToyUpdate):
    def optimizers(self, *args: Any) -> dict[str, Any]:
        right = super().optimizers(*args)
        return {"G": right["G"], "D": right["G"], "unused": right["D"]}

    def step(self, ctx: Any) -> dict[str, Tensor]:
        real = ctx.reals()
        latents = ctx.latents("x")

        def judge(G: Any, D: Any, part: Any) -> Any:
            return {"x": D(part["real"], None).score.mean()}, {}

        ctx.minimise("G", "discriminator", judge, {"real": real.images, "latents": latents})
        return {}


@update_defect("test_changes_weights_in_minimise_alone", "ctx.minimise is never called for it")
class OneSided(ToyUpdate):
    def step(self, ctx: Any) -> dict[str, Tensor]:
        real = ctx.reals()
        terms, _ = ctx.minimise(
            "D", "discriminator", lambda G, D, part: ({"x": D(part["real"], None).score.mean()}, {}), {"real": real[0]}
        )
        return {"Loss/x": terms["x"]}


class OwnLatents:
    """A context in front of another that draws latents elsewhere."""

    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)

    def latents(self, stream: str) -> Tensor:
        return torch.from_numpy(np.random.randn(4, 8)).float()


@update_defect("test_draws_through_the_context", r"no latents through ctx.latents\(\)")
@update_defect("test_same_position_same_step", "random numbers come from elsewhere")
class DrawsLatentsItself(ToyUpdate):
    def step(self, ctx: Any) -> dict[str, Tensor]:
        return super().step(OwnLatents(ctx))


@update_defect("test_draws_through_the_context", r"a step draws 2 batches of reals, and 1 by count_drawn_batches\(posi")
class DrawsMoreThanDeclared(ToyUpdate):
    def step(self, ctx: Any) -> dict[str, Tensor]:
        ctx.reals()
        return super().step(ctx)


@update_defect("test_returns", "'Loss/discriminator' with its graph")
class KeepsTheGraph(ToyUpdate):
    def step(self, ctx: Any) -> dict[str, Tensor]:
        return {tag: value.requires_grad_(True) for tag, value in super().step(ctx).items()}


@update_defect("test_returns", "the tag 'loss', which is not of the form Group/name")
class PlainNames(ToyUpdate):
    def step(self, ctx: Any) -> dict[str, Tensor]:
        return {"loss": super().step(ctx)["Loss/generator"]}


@update_defect("test_returns", "the tag 'Progress/alpha', which is in a group of the core")
class LogsLikeTheCore(ToyUpdate):
    def step(self, ctx: Any) -> dict[str, Tensor]:
        return {"Progress/alpha": super().step(ctx)["Loss/generator"]}


class ThroughAnotherLoss(ToyUpdate):
    """An update that asks the loss through another object."""

    loss: Callable[[Any], Any]

    def step(self, ctx: Any) -> dict[str, Tensor]:
        ctx.loss, loss = self.loss(ctx.loss), ctx.loss
        try:
            return super().step(ctx)
        finally:
            ctx.loss = loss


class ExchangedLoss:
    """A loss that is given fakes for reals."""

    def __init__(self, loss: Any) -> None:
        self.inner = loss

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def discriminator(self, real: Any, fake: Any) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = self.inner.discriminator(fake, real)
        return terms


class NegativeLoss(ExchangedLoss):
    def discriminator(self, real: Any, fake: Any) -> dict[str, Tensor]:
        return {name: -value for name, value in self.inner.discriminator(real, fake).items()}


@update_defect("test_reals_and_fakes", "the first scores that the loss is given for D's terms are not those of the dra")
class ExchangesRealsAndFakes(ThroughAnotherLoss):
    loss = ExchangedLoss


@update_defect(
    "test_descends", "minimising the discriminator's terms raises what the loss gives for it from .* to .*: "
)
class Ascends(ThroughAnotherLoss):
    loss = NegativeLoss


@update_defect("test_step_does_not_wait", "a step with updates.ReadsItsLoss waits for the device: it calls item")
class ReadsItsLoss(ToyUpdate):
    def step(self, ctx: Any) -> dict[str, Tensor]:
        result = super().step(ctx)
        self.last = result["Loss/generator"].item()
        return result


class WithoutDue(OwnLatents):
    answer: Callable[[Sequence[Any]], Sequence[Any]] = staticmethod(
        lambda penalties: [DuePenalty(each, number, 4, moves=False) for number, each in enumerate(penalties)]
    )

    def latents(self, stream: str) -> Tensor:
        return self._ctx.latents(stream)

    def due(self, penalties: Sequence[Any]) -> Sequence[Any]:
        return self.answer(penalties)


class NoneDue(WithoutDue):
    answer = staticmethod(lambda penalties: ())


@update_defect("test_penalties", "ask ctx.due")
class AlwaysDue(ToyUpdate):
    def step(self, ctx: Any) -> dict[str, Tensor]:
        return super().step(WithoutDue(ctx))


@update_defect("test_penalties", "leaves out the loss's penalties")
class NeverDue(ToyUpdate):
    def step(self, ctx: Any) -> dict[str, Tensor]:
        return super().step(NoneDue(ctx))


def growth_defect(method: str, says: str) -> Callable[[Any], Any]:
    return defect(suites.GrowthPolicySuite, method, says)


@growth_defect("test_moments", r"moments is 'sometimes'; it must be one of keep, forget_touched")
class ForgetsSometimes(HalvesOld):
    moments = "sometimes"


@growth_defect("test_factors_are_numbers_and_something_learns", "gave -0.5 as the factor of the discriminator's head")
class Backwards(HalvesOld):
    def factor(self, piece: Any, position: Any) -> float:
        return -super().factor(piece, position) if piece.is_old(position) and position.images > 30 else 1.0


@growth_defect("test_factors_are_numbers_and_something_learns", "freezes the whole discriminator at images 16")
class FreezesAll(HalvesOld):
    def factor(self, piece: Any, position: Any) -> float:
        return 0.0 if piece.net == "discriminator" and position.images == 16 else 1.0


@growth_defect("test_factors_depend_on_their_arguments_alone", "other factors .* when it is asked twice")
class CountsCalls(HalvesOld):
    def __init__(self) -> None:
        self.calls = 0

    def factor(self, piece: Any, position: Any) -> float:
        self.calls += 1
        return 1 / self.calls


@growth_defect("test_resumes_exactly", "does not end where one without a break does")
class CountsSteps(HalvesOld):
    def __init__(self) -> None:
        self.steps = 0

    @hookimpl
    def before_run(self) -> None:
        self.steps = 0

    @hookimpl
    def after_step(self) -> None:
        self.steps += 1

    def factor(self, piece: Any, position: Any) -> float:
        return 1 / (1 + self.steps)


@growth_defect("test_frozen_pieces_stay_equal", "a frozen piece changed in the step that ended at images 12")
class ShrinksAll(HalvesOld):
    @hookimpl
    def after_step(self, state: Any) -> None:
        with torch.no_grad():
            for param in state.generator.parameters():
                param *= 0.9


@pytest.mark.parametrize("case", DEFECTS, ids=name_case)
def test_a_defect_is_reported(case: Defect) -> None:
    check_reported(case)
