"""Conformance suites: inherit the one of your component's kind, override `make`, and run pytest.

    class TestMine(pggan_kit.testing.LossSuite):
        def make(self):
            return Mine()

Each test is a method; a failing one says in a sentence what is broken. Settings of a suite (sizes, channels, batch
sizes, tolerances) are class attributes that a subclass may override. The suites import neither pytest nor any plugin,
and write to temporary folders only.
"""

from pggan_kit.testing.architectures import ArchitectureSuite
from pggan_kit.testing.augmentations import AugmentationSuite
from pggan_kit.testing.averages import AverageSuite
from pggan_kit.testing.curves import CurveSuite
from pggan_kit.testing.datasets import DatasetSuite
from pggan_kit.testing.features import FeatureExtractorSuite
from pggan_kit.testing.generator_penalties import GeneratorPenaltySuite
from pggan_kit.testing.growth import GrowthPolicySuite
from pggan_kit.testing.launchers import LauncherSuite
from pggan_kit.testing.losses import LossSuite
from pggan_kit.testing.metrics import MetricSuite, RunMetricSuite
from pggan_kit.testing.observers import ObserverSuite
from pggan_kit.testing.optimizers import OptimizerSuite
from pggan_kit.testing.penalties import PenaltySuite
from pggan_kit.testing.resampling import ResamplingSuite
from pggan_kit.testing.suite import StepSuite, Suite, TrainedSuite
from pggan_kit.testing.support import SyncWatch, load_hooks, make_stages
from pggan_kit.testing.switches import SwitchSuite
from pggan_kit.testing.updates import UpdateSuite

__all__ = [
    "ArchitectureSuite",
    "AugmentationSuite",
    "AverageSuite",
    "CurveSuite",
    "DatasetSuite",
    "FeatureExtractorSuite",
    "GeneratorPenaltySuite",
    "GrowthPolicySuite",
    "LauncherSuite",
    "LossSuite",
    "MetricSuite",
    "ObserverSuite",
    "OptimizerSuite",
    "PenaltySuite",
    "ResamplingSuite",
    "RunMetricSuite",
    "StepSuite",
    "Suite",
    "SwitchSuite",
    "SyncWatch",
    "TrainedSuite",
    "UpdateSuite",
    "load_hooks",
    "make_stages",
]
