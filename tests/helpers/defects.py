"""Helpers of the tests of suites: sound and broken components of each kind, and suites that run on one by hand."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor

import pggan_kit.testing as suites
from pggan_kit import (
    Fakes,
    Piece,
    Quantity,
    Scores,
    check_at_least,
    generator_gradients,
    hookimpl,
)
from pggan_kit.components import Trial
from pggan_kit.layers.resampling import Area
from pggan_kit.schedule import Position
from pggan_kit.testing.toys import ToyArchitecture, ToyDataset, ToyLoss, ToyOptimizer, ToyUpdate
from pggan_kit.training.step import image_gradients


class Quiet:
    """A sound observer, without hooks."""


class SquaredScores:
    """A sound penalty."""

    def __init__(self, weight: float = 1.0, every: int = 1) -> None:
        check_at_least("weight", weight, 0)
        self.weight = weight
        self.every = every

    def __call__(self, critic: Any, real: Tensor, fake: Tensor, rs: Scores, fs: Scores, mix: Tensor) -> Tensor:
        return image_gradients(critic, real).square().sum((1, 2, 3)).mean() + rs.score.square().mean()


class Contrast:
    """A sound generator penalty, with a memory."""

    needs_noise = True

    def __init__(self, weight: float = 1.0, every: int = 1) -> None:
        check_at_least("weight", weight, 0)
        self.weight = weight
        self.every = every
        self.memory = torch.zeros(())

    def __call__(self, fakes: Fakes) -> Tensor:
        assert fakes.noise is not None and fakes.memory is not None and fakes.styles is not None
        gradients = generator_gradients((fakes.images * fakes.noise).sum(), fakes.styles)
        sizes = gradients.square().sum((1, 2)) + fakes.images.square().mean((1, 2, 3))
        fakes.measure(sizes)
        return (sizes - fakes.memory).square().mean()

    def remember(self, mean: Tensor) -> None:
        self.memory = torch.lerp(self.memory, mean, 0.1)

    @hookimpl
    def before_run(self) -> None:
        self.memory = torch.zeros(())

    @hookimpl
    def save_state(self) -> dict[str, Tensor]:
        return {"memory": self.memory}

    @hookimpl
    def load_state(self, saved: dict[str, Tensor]) -> None:
        self.memory = saved["memory"]


class Flip:
    """A sound augmentation."""

    def __call__(self, images: Tensor) -> Tensor:
        flip = torch.rand(len(images)) < 0.5
        return torch.where(flip[:, None, None, None], images.flip(3), images)


class Half:
    """A sound average."""

    names: Sequence[str] = ("half",)

    def compute_shares(self, position: Any, age: int, images: int) -> Sequence[float]:
        return (0.5,)


class Ramp:
    """A sound switch."""

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        return progress


class HalvesOld:
    """A sound growth policy: old pieces learn at half the rate, and G's are frozen first."""

    moments = "keep"

    def factor(self, piece: Piece, position: Position) -> float:
        if not piece.is_old(position):
            return 1.0
        frozen = piece.net == "generator" and position.images - position.stage_start < 9
        return 0.0 if frozen else 0.5


class MeanGap:
    """A sound metric."""

    quantities: Mapping[str, Quantity] = MappingProxyType({"gap": Quantity("lower", (0.0, math.inf), "log")})

    def describe(self, images: Tensor) -> Tensor:
        return images.flatten(1).mean(1)

    def fingerprint(self) -> str:
        return "means"

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        return {"gap": float((real.mean() - fake.mean()).abs())}


class Moments:
    """A sound feature extractor."""

    def __call__(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        return torch.stack([flat.mean(1), flat.std(1)], 1)

    def fingerprint(self) -> str:
        return "moments"


class InTurn:
    """A sound launcher, one trial after the other."""

    def launch(self, trials: Sequence[Trial], ended: Callable[[Trial, int], None] | None = None) -> list[int]:
        codes = []
        for trial in trials:
            codes.append(self.run(trial))
            if ended is not None:
                ended(trial, codes[-1])
        return codes

    def run(self, trial: Trial) -> int:
        """Run a trial, and once more where it was killed; return its exit code."""
        code = self.run_once(trial)
        while code == 75:
            code = self.run_once(trial)
        return code if code in (0, 2) else self.run_once(trial)

    def run_once(self, trial: Trial) -> int:
        """Run a trial once, and return its exit code."""
        try:
            with open(trial.log or "/dev/null", "a") as log:
                process = subprocess.Popen(trial.command, cwd=trial.folder, stdout=log, stderr=log)
        except OSError:
            return 127
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise


class SpentShare:
    """A sound curve."""

    def at(self, position: Position) -> float:
        return position.images / position.total


SOUND: dict[type[suites.Suite], Callable[[], Any]] = {
    suites.ArchitectureSuite: ToyArchitecture,
    suites.ResamplingSuite: Area,
    suites.LossSuite: ToyLoss,
    suites.PenaltySuite: SquaredScores,
    suites.GeneratorPenaltySuite: Contrast,
    suites.AugmentationSuite: Flip,
    suites.AverageSuite: Half,
    suites.CurveSuite: SpentShare,
    suites.OptimizerSuite: ToyOptimizer,
    suites.SwitchSuite: Ramp,
    suites.GrowthPolicySuite: HalvesOld,
    suites.UpdateSuite: ToyUpdate,
    suites.DatasetSuite: lambda: ToyDataset(classes=3),
    suites.MetricSuite: MeanGap,
    suites.FeatureExtractorSuite: Moments,
    suites.ObserverSuite: Quiet,
    suites.LauncherSuite: InTurn,
}
"""A sound component for each suite."""


def make_suite(suite: type[suites.Suite], make: Callable[[], Any], **attributes: Any) -> Any:
    """Return an instance of a suite with a `make` and other attributes."""
    return type("Suite", (suite,), {"make": lambda self: make(), **attributes})()


@dataclass
class Defect:
    """A broken component.

    Attributes:
        suite: Suite of its kind.
        make: Function that makes the component.
        method: Name of the test that must fail.
        says: Pattern of the message.
        attributes: Attributes of the suite.
    """

    suite: type[suites.Suite]
    make: Callable[[], Any]
    method: str
    says: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Defects(list[Defect]):
    """The broken components of a test module."""

    def register(self, suite: type[suites.Suite], method: str, says: str, **attributes: Any) -> Callable[[Any], Any]:
        """Return a decorator that registers a class (or function) whose component has this defect."""

        def append(make: Any) -> Any:
            self.append(Defect(suite, make, method, says, attributes))
            return make

        return append


def name_case(case: Defect) -> str:
    """Return a defect's name for pytest's report."""
    return f"{case.suite.kind}-{case.make.__name__}-{case.method}"


def check_reported(case: Defect) -> None:
    """Require the suite to fail on the component, with the sentence that names its defect."""
    instance = make_suite(case.suite, case.make, **case.attributes)
    with pytest.raises(AssertionError, match=case.says):
        getattr(instance, case.method)()


class HalfGradient(torch.autograd.Function):
    """The identity, with half its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad / 2
