"""The conformance suites: sound components pass, and each defect fails with a sentence that names it."""

from __future__ import annotations

import importlib
import json
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.defects import (
    SOUND,
    Defect,
    Defects,
    Flip,
    InTurn,
    MeanGap,
    Moments,
    Quiet,
    SquaredScores,
    check_reported,
    make_suite,
    name_case,
)
from helpers.killing import in_a_child
from helpers.modules import load_module
from helpers.paths import TESTS
from helpers.variants import AGAIN
from torch import Tensor

import pggan_kit.testing as suites
from pggan_kit import Interrupted, Quantity, Scores, check_at_least, hookimpl
from pggan_kit.components import KINDS, Trial
from pggan_kit.layers.resampling import Area, AreaDownsample
from pggan_kit.plugin_host.loading import load_plugins
from pggan_kit.testing.toys import ToyDataset, ToyLoss

DEFECTS = Defects()
defect = DEFECTS.register


@defect(suites.LossSuite, "test_keeps_its_protocol", "it has no generator")
class LossWithoutGenerator:
    needs_real = False
    penalties = ()

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        return {}


@defect(suites.ObserverSuite, "test_hooks_are_known", r"after_stp is not a hook \(did you mean after_step\?\)")
class MisspeltHook:
    @hookimpl
    def after_stp(self) -> None: ...


@defect(suites.ObserverSuite, "test_hooks_are_known", "named like a hook, so mark it")
class UnmarkedHook:
    def after_step(self) -> None: ...


@defect(suites.PenaltySuite, "test_bad_arguments_are_refused", "raise no SettingError", bad_arguments=[{"every": 0}])
class TakesAnything(SquaredScores): ...


@defect(suites.PenaltySuite, "test_bad_arguments_are_refused", "must have its name", bad_arguments=[{"every": 0}])
class BlamesAnother(SquaredScores):
    def __init__(self, every: int = 1) -> None:
        check_at_least("weight", every, 1)
        super().__init__(1.0, every)


@defect(suites.PenaltySuite, "test_bad_arguments_are_refused", "raise a SettingError", bad_arguments=[{"every": 0}])
class SaysNothing(SquaredScores):
    def __init__(self, every: int = 1) -> None:
        if every < 1:
            raise ValueError("bad value")
        super().__init__(1.0, every)


@defect(suites.LossSuite, "test_trains_through_a_fade", "training a tiny run with losses.Raises fails: .*TypeError: oh")
class Raises(ToyLoss):
    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        raise TypeError("oh")


@defect(suites.ObserverSuite, "test_trains_through_a_fade", "a tiny run with .*StopsRuns fails: Interrupted: enough")
class StopsRuns:
    @hookimpl
    def after_step(self) -> None:
        raise Interrupted(None, "enough")


@defect(suites.LossSuite, "test_same_seed_same_weights", "draws random numbers from elsewhere")
class NumPyNoise(ToyLoss):
    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        return {"noisy": F.softplus(-fake.score).mean() * (1 + np.random.rand())}


@defect(suites.LossSuite, "test_resumes_exactly", "keeps something that it does not save")
class Remembers(ToyLoss):
    calls = 0

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        self.calls += 1
        return {"growing": F.softplus(-fake.score).mean() * self.calls}


@defect(suites.AugmentationSuite, "test_state_survives_a_checkpoint", "has save_state but no load_state")
class SavesInVain(Flip):
    @hookimpl
    def save_state(self) -> dict[str, Any]:
        return {"p": 0.5}


@defect(suites.AugmentationSuite, "test_state_survives_a_checkpoint", "does not take back in load_state")
class LoadsNothing(Flip):
    p = 0.0

    @hookimpl
    def after_step(self) -> None:
        self.p += 1.0

    @hookimpl
    def save_state(self) -> dict[str, Any]:
        return {"p": self.p}

    @hookimpl
    def load_state(self, saved: Mapping[str, Any]) -> None: ...


@defect(suites.AugmentationSuite, "test_state_survives_a_checkpoint", "cannot be read back from a checkpoint")
class SavesAnObject(Flip):
    @hookimpl
    def save_state(self) -> dict[str, Any]:
        return {"rng": np.random.get_state()}

    @hookimpl
    def load_state(self, saved: Mapping[str, Any]) -> None: ...


@defect(suites.ObserverSuite, "test_hot_hooks_do_not_wait", r"waits for the device in after_step: it calls item on")
class ReadsEachLoss:
    @hookimpl
    def after_step(self, losses: Mapping[str, Tensor]) -> None:
        self.last = {name: value.item() for name, value in losses.items()}


@defect(suites.ObserverSuite, "test_hot_hooks_do_not_wait", "it calls __float__ on")
class FloatsEachLoss:
    @hookimpl
    def after_step(self, losses: Mapping[str, Tensor]) -> None:
        self.last = {name: float(value) for name, value in losses.items()}


@defect(suites.SwitchSuite, "test_hot_hooks_do_not_wait", "waits for the device in fade_alpha: it calls cpu on")
class AsksTheDevice:
    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        torch.zeros(3).cpu()
        return progress


@defect(suites.LossSuite, "test_step_does_not_wait", r"waits for the device: it calls __getitem__ on a tensor")
@defect(suites.LossSuite, "test_steps_can_be_captured", "aten::index is not permitted while a graph is recorded")
class CountsGoodScores(ToyLoss):
    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        return {"logistic": F.softplus(-fake.score[fake.score > -9]).mean()}


@defect(suites.LossSuite, "test_step_does_not_wait", r"a step with losses\.ReadsScores waits for the device: .* item")
class ReadsScores(ToyLoss):
    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        self.last = fake.score.mean().item()
        return super().generator(fake, real)


class AsItLies(AreaDownsample):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.as_strided(x.shape, torch.empty(x.shape).stride()))


@defect(suites.ResamplingSuite, "test_memory_formats_agree", "after two steps depends on the memory format")
class ReadsMemory(Area):
    def down(self, channels: int, factor: int) -> Any:
        return AsItLies(factor)


@defect(
    suites.AugmentationSuite, "test_trains_in_bfloat16", "under bfloat16 autocast a step with .*Blends fails: RuntimeEr"
)
class Blends(Flip):
    def __call__(self, images: Tensor) -> Tensor:
        result = images.clone()
        some = torch.rand(len(images)) < 0.9
        result[some] = F.conv2d(images, torch.ones(1, 1, 1, 1))[some]  # bfloat16 into float32
        return result


@defect(suites.MetricSuite, "test_descriptions", r"describe\(\) of 16 images .* returns no tensor \(16, ...\)")
class DescribesTheBatch(MeanGap):
    def describe(self, images: Tensor) -> Tensor:
        return images.mean()[None]


@defect(suites.MetricSuite, "test_descriptions", "returns what is not finite")
class DividesByZero(MeanGap):
    def describe(self, images: Tensor) -> Tensor:
        return super().describe(images) / 0


@defect(suites.MetricSuite, "test_values", "returns 'gap' as Tensor")
class ReturnsTensors(MeanGap):
    def compare(self, real: Tensor, fake: Tensor) -> dict[str, Any]:
        return {"gap": (real.mean() - fake.mean()).abs()}


@defect(suites.MetricSuite, "test_values", "not defined at any of the sizes")
class NeverDefined(MeanGap):
    def describe(self, images: Tensor) -> Any:
        return None


@defect(suites.MetricSuite, "test_quantities", r"'gap' is 0\.\d+, and quantities states that it lies in \[1\.0, 2\.0\]")
class StatesAnotherRange(MeanGap):
    quantities = MappingProxyType({"gap": Quantity("lower", (1.0, 2.0))})


@defect(suites.MetricSuite, "test_quantities", r"compare\(\) gives 'gap', and quantities names gaps: add it there")
class StatesAnotherName(MeanGap):
    quantities = MappingProxyType({"gaps": Quantity("lower")})


@defect(suites.MetricSuite, "test_quantities", r"quantities states 'gap' as str, no pggan_kit\.Quantity")
class StatesADirectionAlone(MeanGap):
    quantities: Any = MappingProxyType({"gap": "lower"})


@defect(suites.MetricSuite, "test_remembers_nothing", "must remember nothing")
class NeverForgets(MeanGap):
    def __init__(self) -> None:
        self.gaps: list[float] = []

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        self.gaps.append(float((real.mean() - fake.mean()).abs()))
        return {"gap": sum(self.gaps)}


@defect(suites.MetricSuite, "test_order_of_images", "with the images in another order")
class LooksAtTheFirst(MeanGap):
    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        return {"gap": float((real[0] - fake[0]).abs())}


@defect(suites.MetricSuite, "test_order_of_images", "with the fakes in another order")
class ComparesPairs(MeanGap):
    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        return {"gap": float((real - fake).abs().mean())}


@defect(suites.MetricSuite, "test_values", r"compare\(\) of 16 reals with 15 fakes fails: RuntimeError")
class ComparesQuantiles(MeanGap):
    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        return {"gap": float((real.sort().values - fake.sort().values).abs().mean())}


@defect(
    suites.MetricSuite, "test_image_by_image", r"describe\(\) at 16x16 gives an image another row in a batch of ano"
)
class CentresTheBatch(MeanGap):
    def describe(self, images: Tensor) -> Tensor:
        means = super().describe(images)
        return means - means.mean()


@defect(suites.MetricSuite, "test_leaves_images_alone", r"describe\(\) changes its images in place")
class ShiftsImages(MeanGap):
    def describe(self, images: Tensor) -> Tensor:
        return super().describe(images.add_(1))


@defect(suites.MetricSuite, "test_leaves_images_alone", r"compare\(\) changes its descriptions in place")
class ShiftsDescriptions(MeanGap):
    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        return super().compare(real.add_(1), fake)


@defect(suites.DatasetSuite, "test_row_fingerprints", r"row_fingerprints\(\) has not one text for each of 16")
class TooFewRows(ToyDataset):
    def row_fingerprints(self) -> list[str]:
        return ["a"]


@defect(suites.DatasetSuite, "test_row_fingerprints", r"row_fingerprints\(\) differs from object to object")
class RowsNamedByTheirPlace(ToyDataset):
    def row_fingerprints(self) -> list[str]:
        return [str(id(self))] * 16


@defect(suites.DatasetSuite, "test_row_fingerprints", r"row_fingerprints\(\) is the same for images \d+ and \d+")
class RowsOfOneName(ToyDataset):
    def row_fingerprints(self) -> list[str]:
        return ["a"] * 16


class ForgetsItsChannels(ToyDataset):
    """Its fingerprint has a setting less."""

    def fingerprint(self) -> str:
        return f"toy {self.classes}"


@pytest.mark.parametrize(
    ("dataset", "channels", "complaint"),
    [
        (ToyDataset, 3, None),
        (ToyDataset, 1, r"make_others\(\)\[0\] has the same images and labels as make\(\)"),
        (
            ForgetsItsChannels,
            3,
            r"make_others\(\)\[0\] has other images or labels than make\(\), and the same fingerprint",
        ),
    ],
)
def test_settings_that_change_images_change_the_fingerprint(
    dataset: type[ToyDataset], channels: int, complaint: str | None
) -> None:
    suite = make_suite(
        suites.DatasetSuite, lambda: dataset(channels=1), make_others=lambda suite: [dataset(channels=channels)]
    )
    if complaint is None:
        suite.test_other_fingerprints()
        return
    with pytest.raises(AssertionError, match=complaint):
        suite.test_other_fingerprints()


@defect(suites.MetricSuite, "test_fingerprint", r"fingerprint\(\) differs")
class NamedByItsPlace(MeanGap):
    def fingerprint(self) -> str:
        return str(id(self))


@defect(suites.FeatureExtractorSuite, "test_fingerprint", r"fingerprint\(\) is no text")
class NamedByANumber(Moments):
    def fingerprint(self) -> Any:
        return 7


@defect(suites.FeatureExtractorSuite, "test_features", r"images of different sizes or channels have .* features")
class Pixels(Moments):
    def __call__(self, images: Tensor) -> Tensor:
        return images.flatten(1)


@defect(suites.FeatureExtractorSuite, "test_image_by_image", "is a network in training mode")
class BatchNormalised(Moments):
    def __call__(self, images: Tensor) -> Tensor:
        features = super().__call__(images)
        return (features - features.mean(0)) / (features.std(0, unbiased=False) + 1e-3)


@defect(suites.ObserverSuite, "test_changes_nothing", "it disturbs training")
class Meddles:
    @hookimpl
    def after_step(self, state: Any) -> None:
        with torch.no_grad():
            state.generator.to_image.bias.mul_(0.9)


@defect(suites.ObserverSuite, "test_changes_nothing", "it disturbs training")
class SamplesTheLiveGenerator:
    @hookimpl
    def after_tick(self, state: Any) -> None:
        with torch.no_grad():
            state.generator(torch.zeros(4, 8))


@defect(suites.ObserverSuite, "test_changes_nothing", "or leave them in inference mode")
@defect(suites.ObserverSuite, "test_trains_through_a_fade", "the generator is left in inference mode: call train")
class ForgetsTrainingMode:
    @hookimpl
    def after_tick(self, state: Any) -> None:
        state.generator.eval()


@defect(suites.ObserverSuite, "test_leaves_the_same_files_in_each_run", r"ticks\.txt is not what a new one leaves")
class CountsOn:
    def __init__(self) -> None:
        self.count = 0

    @hookimpl
    def after_tick(self, run: Any) -> None:
        self.count += 1
        (run.directory / "ticks.txt").write_text(str(self.count))


@defect(suites.ObserverSuite, "test_keeps_nothing_in_its_class", r"changes WritesAllRuns\.rows, which belongs to")
class WritesAllRuns:
    rows: ClassVar[list[int]] = []

    @hookimpl
    def after_tick(self, run: Any, state: Any) -> None:
        self.rows.append(state.images)
        (run.directory / "rows.json").write_text(json.dumps(self.rows))


@defect(suites.ObserverSuite, "test_resumes_with_the_same_files", r"resumed at images 0 leaves another rows\.txt")
class NeverCutsItsRows:
    @hookimpl
    def after_tick(self, run: Any) -> None:
        with (run.directory / "rows.txt").open("a") as file:
            file.write(f"{run.state.images}\n")


@defect(suites.ObserverSuite, "test_begins_each_run_afresh", "begin it in before_run, not in __init__ alone")
class CountsOnAndSaves(CountsOn):
    @hookimpl
    def save_state(self) -> dict[str, Any]:
        return {"count": self.count}

    @hookimpl
    def load_state(self, saved: Mapping[str, Any]) -> None:
        self.count = saved["count"]


@defect(suites.LauncherSuite, "test_exit_codes", r"exit with 0, 2 and 0 are reported as \[0, 1, 0\]")
class ZeroOrOne(InTurn):
    def run(self, trial: Trial) -> int:
        return int(super().run(trial) != 0)


@defect(suites.LauncherSuite, "test_exit_codes", "are reported as")
class AsTheyEnd(InTurn):
    def launch(self, trials: Sequence[Trial], ended: Any = None) -> list[int]:
        return [*super().launch(trials, ended)[::-1][1:], 0]


@defect(suites.LauncherSuite, "test_exit_codes", r"`ended` is called with \{\}")
class NeverCallsEnded(InTurn):
    def launch(self, trials: Sequence[Trial], ended: Any = None) -> list[int]:
        return super().launch(trials)


@defect(suites.LauncherSuite, "test_exit_codes", "returns 2 exit codes for 3 trials")
class LosesOne(InTurn):
    def launch(self, trials: Sequence[Trial], ended: Any = None) -> list[int]:
        return super().launch(trials[1:], ended)


@defect(suites.LauncherSuite, "test_place", "the log of a trial in")
class StaysHere(InTurn):
    def run_once(self, trial: Trial) -> int:
        return super().run_once(replace(trial, folder=None))


@defect(suites.LauncherSuite, "test_dead_trials_run_again", "it is not run again")
class NeverTriesAgain(InTurn):
    def run(self, trial: Trial) -> int:
        return self.run_once(trial)


@defect(suites.LauncherSuite, "test_dead_trials_run_again", "is run 2 times")
class TriesWrongInputAgain(InTurn):
    def run(self, trial: Trial) -> int:
        return self.run_once(trial) and self.run_once(trial)


@defect(suites.LauncherSuite, "test_dead_trials_run_again", r"launch.. raises CalledProcessError")
class GivesUp(InTurn):
    def run_once(self, trial: Trial) -> int:
        return subprocess.run(trial.command, check=True, cwd=trial.folder).returncode


@defect(suites.LauncherSuite, "test_time_limits", r"ends with \[75\] after 2: reaching the time limit is no failure")
class TakesTimeLimitsForFailures(InTurn):
    def run(self, trial: Trial) -> int:
        return self.run_once(trial) and self.run_once(trial)


@defect(suites.LauncherSuite, "test_launches_again", "in the second launch a trial that is killed once ends with")
class RunsOutOfTries(InTurn):
    def __init__(self) -> None:
        self.left = 1

    def run(self, trial: Trial) -> int:
        code = self.run_once(trial)
        if code and self.left:
            self.left -= 1
            code = self.run_once(trial)
        return code


@defect(suites.LauncherSuite, "test_missing_program", r"launch.. raises FileNotFoundError")
class AssumesThatCommandsExist(InTurn):
    def run_once(self, trial: Trial) -> int:
        return subprocess.run(trial.command, check=False).returncode


class Impatient(suites.LauncherSuite):
    """A suite that waits less long: the trials of these two launchers are left running."""

    patience = 5.0


@defect(Impatient, "test_stops_in_order", "does not wait for a trial")
class RunsAway(InTurn):
    def run_once(self, trial: Trial) -> int:
        process = subprocess.Popen(trial.command, cwd=trial.folder)
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.kill()
            raise


@defect(Impatient, "test_stops_in_order", "is not raised again")
class SwallowsIt(InTurn):
    def run_once(self, trial: Trial) -> int:
        try:
            return super().run_once(trial)
        except KeyboardInterrupt:
            return 143


@defect(Impatient, "test_stops_in_order", "is not raised again")
class RunsNothing(InTurn):
    """It returns before the interrupt, which must not end the tests."""

    def run_once(self, trial: Trial) -> int:
        return 0


@pytest.mark.parametrize("case", DEFECTS, ids=name_case)
def test_a_defect_is_reported(case: Defect) -> None:
    check_reported(case)


@pytest.mark.parametrize("left_out", [AGAIN, pytest.param((), marks=pytest.mark.slow)], ids=["once", "again"])
@pytest.mark.parametrize("suite", SOUND, ids=lambda suite: suite.kind)
def test_a_sound_component_passes(suite: type[suites.Suite], left_out: Sequence[str]) -> None:
    """Tests that train again and again are left to the slow tests: shipped components of each kind pass them."""
    attributes: dict[str, Any] = {}
    if suite is suites.OptimizerSuite:
        attributes["lr_name"] = ""
    if suite is suites.ArchitectureSuite:
        attributes["geometries"] = ((4, 8),)
    instance = make_suite(suite, SOUND[suite], **attributes)
    for name in dir(instance):
        if name.startswith("test_") and name not in left_out:
            getattr(instance, name)()


def test_a_suite_stops_no_run_that_is_complete(recwarn: pytest.WarningsRecorder) -> None:
    """Its author would read a warning about a signal that nobody sent."""

    class Watches:
        @hookimpl
        def after_tick(self) -> None:
            """Do nothing: components without hooks are not stopped."""

    make_suite(suites.ObserverSuite, Watches).test_stops_exactly()
    assert [str(one.message) for one in recwarn if "asked to stop" in str(one.message)] == []


def test_tests_share_a_run_within_one_class_alone() -> None:
    """Another class, or an instance that a fixture gave an attribute, may make another component."""
    makers: list[str] = []

    class First(suites.ObserverSuite):
        def make(self) -> Quiet:
            makers.append(type(self).__name__)
            return Quiet()

    class Second(First): ...

    for suite in (First(), First(), Second()):
        suite.test_trains_through_a_fade()
    assert makers == ["First", "Second"]
    particular: Any = First()
    particular.setting = 3
    particular.test_trains_through_a_fade()
    assert makers == ["First", "Second", "First"]


class PressesCtrlC:
    @hookimpl
    def after_step(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_ends_a_suite_and_is_not_taken_for_a_defect() -> None:
    # A process in the background ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            make_suite(suites.ObserverSuite, PressesCtrlC).test_trains_through_a_fade()
    finally:
        signal.signal(signal.SIGINT, before)


def test_every_kind_has_a_suite_and_a_defect() -> None:
    here = TESTS / "testing"
    others = [runpy.run_path(str(here / f"test_{name}_suites.py")) for name in ("loss", "network", "training")]
    defects = [*DEFECTS, *(case for other in others for case in other["DEFECTS"])]
    assert {suite.kind for suite in SOUND} == set(KINDS)
    assert {case.suite.kind for case in defects} == set(KINDS)


def test_the_installed_package_does_not_need_pytest() -> None:
    """Import it again in a child that has forgotten the package and pytest, and has torch still."""

    def import_again() -> None:
        for name in list(sys.modules):
            if name.partition(".")[0] in ("pggan_kit", "pytest", "_pytest"):
                del sys.modules[name]
        importlib.import_module("pggan_kit.testing")
        assert "pytest" not in sys.modules and "_pytest" not in sys.modules

    assert in_a_child(import_again) == 0


def test_what_waits_for_the_device_is_noticed() -> None:
    value = torch.tensor(1.5)
    other = torch.zeros(2)
    waits: dict[str, Callable[[], Any]] = {
        "item": value.item,
        "tolist": value.tolist,
        "cpu": value.cpu,
        "numpy": value.numpy,
        "to": lambda: value.to("cpu"),
        "float": lambda: float(value),
        "int": lambda: int(value),
        "if": lambda: 1 if value > 0 else 2,
        "format": lambda: f"{value:.2f}",
        "print": lambda: str(value),
        "array": lambda: np.asarray(value),
        "equal": lambda: torch.equal(value, value),
        "mask": lambda: other[other > 0],
        "mask beside a slice": lambda: other[None][:, other > 0],
        "values at a mask": lambda: other.clone().__setitem__(other == 0, torch.ones(2)),
        "masked_select": lambda: other.masked_select(other > 0),
        "unique": lambda: torch.unique(other),
        "where": lambda: torch.where(other > 0),
        "repeats": lambda: other.repeat_interleave(torch.tensor([1, 2])),
    }
    for name, action in waits.items():
        with suites.SyncWatch() as watch:
            action()
        assert watch.found, name

    # Work that stays on the device.
    with suites.SyncWatch() as watch:
        other += value * 2
        torch.stack([value, value]).mean().detach().to(torch.float64)
        other.clone().clamp_(0, 1).copy_(other, non_blocking=True)
        other[torch.tensor([1, 0])][:1][None].repeat_interleave(2)
        other[other > 0] = 1.0
        torch.where(other > 0, other, -other)
    assert watch.found == []


TESTED_HERE = (
    "architectures",
    "resampling",
    "losses",
    "penalties",
    "updates",
    "optimizers",
    "switches",
    "curves",
    "growth",
)
"""Kinds whose shipped components must each have a suite."""


def test_every_shipped_component_has_a_suite() -> None:
    """Somewhere in tests/plugins there is a class whose `make` makes it."""
    made: set[type] = set()
    for path in (TESTS / "plugins").rglob("test_*.py"):
        if "Suite" not in path.read_text():
            continue
        for value in vars(load_module(path)).values():
            is_suite = isinstance(value, type) and issubclass(value, suites.Suite)
            if is_suite and value.__name__.startswith("Test") and value.kind in TESTED_HERE:
                made.add(type(value().make()))

    shipped = []
    for row in load_plugins().rows.values():
        component = row.component
        if component.kind in TESTED_HERE and is_ours(component.factory):
            shipped.append(component)
    assert shipped
    missing = [f"{component.kind}.{component.name}" for component in shipped if component.factory not in made]
    assert not missing, f"no conformance suite for {', '.join(missing)}"


def is_ours(factory: Callable[..., Any]) -> bool:
    """Return whether a component comes from this project's own plugins."""
    return factory.__module__.startswith("pggan_plugins.")
