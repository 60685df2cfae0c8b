"""Broken architectures, resampling pairs and augmentations fail their suites, with messages that say what is wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.defects import Defect, Defects, Flip, HalfGradient, check_reported, name_case
from torch import Tensor, nn

import pggan_kit.testing as suites
from pggan_kit import Scores
from pggan_kit.components import BatchStatistic
from pggan_kit.layers.resampling import Area, AreaDownsample, NearestUpsample
from pggan_kit.testing.toys import ToyArchitecture
from pggan_plugins.architectures import PGGAN

DEFECTS = Defects()
defect = DEFECTS.register


@defect(suites.ArchitectureSuite, "test_shapes", r"G's images at 4x4 .* \(1, 2, 4, 4\), not float32 \(1, 1, 4, 4\)")
class OneChannelTooMany(ToyArchitecture):
    def to_image(self, stage: Any) -> nn.Module:
        return nn.Conv2d(6, stage.image_channels + 1, 1)


@defect(suites.ArchitectureSuite, "test_shapes", "the discriminator's head returned a Tensor, and must return Scores")
class BareScores(ToyArchitecture):
    def discriminator_head(self, stage: Any) -> nn.Module:
        return TakesLabels(nn.Flatten(), nn.Linear(6 * stage.height * stage.width, 1))


class ListOfLayers(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = list(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


@defect(suites.ArchitectureSuite, "test_shapes", r"to_image of 4x4, layers is a plain list: use nn\.ModuleList")
class KeepsLayersInAList(ToyArchitecture):
    def to_image(self, stage: Any) -> nn.Module:
        return ListOfLayers(super().to_image(stage))


class TakesLabels(nn.Sequential):
    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        return super().forward(x)


class ScoresWithShape(TakesLabels):
    def forward(self, x: Tensor, labels: Tensor | None = None) -> Scores:
        return Scores(super().forward(x))


@defect(
    suites.ArchitectureSuite,
    "test_shapes",
    r"the discriminator's head returned scores \(1, 1\), and must return \(1,\)",
)
class TwoDimensionalScores(ToyArchitecture):
    def discriminator_head(self, stage: Any) -> nn.Module:
        return ScoresWithShape(nn.Flatten(), nn.Linear(6 * stage.height * stage.width, 1))


@defect(suites.ArchitectureSuite, "test_encoder", r"the encoder's head returned a tensor \(4, 1, 4, 4\), and must ret")
class CodesAsMaps(ToyArchitecture):
    def encoder_head(self, stage: Any, latent_size: int) -> nn.Module:
        return nn.Conv2d(6, 1, 1)


@defect(suites.ArchitectureSuite, "test_encoder", "no gradient flows to the encoder at 4x4's parameter .*forgotten")
class ForgetfulEncoder(ToyArchitecture):
    def encoder_head(self, stage: Any, latent_size: int) -> nn.Module:
        return Unused(super().encoder_head(stage, latent_size))


class Unused(nn.Sequential):
    """A module with a parameter that it does not use."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__(*modules)
        self.forgotten = nn.Parameter(torch.ones(2))


@defect(
    suites.ArchitectureSuite, "test_gradients_flow", "no gradient flows to the generator at 8x8's parameter .*forgotten"
)
class Forgetful(ToyArchitecture):
    def generator_block(self, *args: Any) -> nn.Module:
        return Unused(super().generator_block(*args))


@defect(suites.ArchitectureSuite, "test_function_at_alpha_0", "preserves_function is True, but .* the discriminator's")
class JumpsAtGrowth(ToyArchitecture):
    def discriminator_bridge(self, previous: Any, stage: Any, resampling: Any, old_from_image: nn.Module) -> nn.Module:
        fresh = self.from_image(previous)
        return super().discriminator_bridge(previous, stage, resampling, fresh)


@defect(suites.ArchitectureSuite, "test_function_at_alpha_0", "preserves_function is False, but .* did before")
class PreservesMoreThanItSays(ToyArchitecture):
    preserves_function = False


@defect(suites.ArchitectureSuite, "test_function_at_alpha_1", "initial weights depend on whether there is a bridge")
class CountsBridges(ToyArchitecture):
    def discriminator_bridge(self, previous: Any, stage: Any, resampling: Any, old_from_image: nn.Module) -> nn.Module:
        with torch.no_grad():
            for param in self.block.parameters():
                param += 1
        return super().discriminator_bridge(previous, stage, resampling, old_from_image)

    def discriminator_block(self, *args: Any) -> nn.Module:
        self.block = super().discriminator_block(*args)
        return self.block


class Centred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


@defect(suites.ArchitectureSuite, "test_batches_stay_apart", "beside another batch the scores of one change")
class MixesBatches(ToyArchitecture):
    separates_batches = True

    def from_image(self, stage: Any) -> nn.Module:
        return nn.Sequential(super().from_image(stage), Centred())


@defect(suites.ArchitectureSuite, "test_batch_statistics", "discriminator's output .* depends .* declares nothing")
class DeclaresTooLittle(MixesBatches):
    separates_batches = False

    def batch_statistics(self, stage: Any, samples: int) -> list[BatchStatistic]:
        return [BatchStatistic("generator", "mean", 1, "0")]


@defect(suites.ArchitectureSuite, "test_batch_statistics", "the encoder's output of .* depends .* declares nothing")
class LeavesOutTheEncoder(PGGAN):
    def __init__(self) -> None:
        super().__init__(channels=4, discriminator_norm="batch")

    def batch_statistics(self, stage: Any, samples: int) -> list[BatchStatistic]:
        return [each for each in super().batch_statistics(stage, samples) if each.net != "encoder"]


@defect(suites.ArchitectureSuite, "test_batch_statistics", "declares mean of several samples for the generator")
class MixesNothing(ToyArchitecture):
    def batch_statistics(self, stage: Any, samples: int) -> list[BatchStatistic]:
        return [BatchStatistic("generator", "mean", samples, "0")]


@defect(suites.ArchitectureSuite, "test_batch_statistics", "with 1 samples gives mean a group of 2")
class LargerThanTheBatch(ToyArchitecture):
    def batch_statistics(self, stage: Any, samples: int) -> list[BatchStatistic]:
        return [BatchStatistic("generator", "mean", 2, "0")]


@defect(suites.ArchitectureSuite, "test_batch_statistics", r"gives \('critic', .*, not a BatchStatistic of the")
class OfNoNetwork(ToyArchitecture):
    def batch_statistics(self, stage: Any, samples: int) -> list[Any]:
        return [("critic", "mean", 1, "0")]


class RollsSamples(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.roll(1, 0)


@defect(
    suites.ArchitectureSuite, "test_samples_stay_apart", "in inference mode G's image of a sample depends on the ot"
)
class RollsImages(ToyArchitecture):
    def to_image(self, stage: Any) -> nn.Module:
        return nn.Sequential(super().to_image(stage), RollsSamples())


@defect(suites.ArchitectureSuite, "test_samples_stay_apart", "declares nothing, but in training mode D's score of a sa")
class ComparesSamples(ToyArchitecture):
    def from_image(self, stage: Any) -> nn.Module:
        return nn.Sequential(super().from_image(stage), Centred())


@defect(suites.ArchitectureSuite, "test_conditional", "conditional is True, but with other labels G makes", classes=3)
class IgnoresLabels(ToyArchitecture):
    conditional = True


class EmbedsLabels(nn.Module):
    def __init__(self, head: nn.Module, classes: int) -> None:
        super().__init__()
        self.head = head
        self.bias = nn.Embedding(classes or 1, 1)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Scores:
        scores: Scores = self.head(features, labels)
        return scores if labels is None else Scores(scores.score + self.bias(labels)[:, 0], labels=labels)


@defect(suites.ArchitectureSuite, "test_conditional", "conditional is False, but with other labels the discriminator's")
class LooksAtLabels(ToyArchitecture):
    def discriminator_head(self, stage: Any) -> nn.Module:
        return EmbedsLabels(super().discriminator_head(stage), stage.classes)


@defect(suites.ArchitectureSuite, "test_initial_weights", "differ under the same seed")
class NumPyWeights(ToyArchitecture):
    def to_image(self, stage: Any) -> nn.Module:
        conv = nn.Conv2d(6, stage.image_channels, 1)
        nn.init.constant_(conv.weight, np.random.rand())
        return conv


SHARED_MODULE = nn.Conv2d(6, 1, 1)


@defect(suites.ArchitectureSuite, "test_initial_weights", "share weights", image_channels=(1,))
class SharesModules(ToyArchitecture):
    def to_image(self, stage: Any) -> nn.Module:
        return SHARED_MODULE


class TwiceAsLarge(NearestUpsample):
    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2)


@defect(
    suites.ResamplingSuite,
    "test_sizes",
    r"up with factor 3 and 1 channels makes .*\(1, 1, 2, 2\) where .*\(1, 1, 3, 3\)",
)
class OnlyFactorTwo(Area):
    def up(self, channels: int, factor: int) -> Any:
        return TwiceAsLarge(factor)


@defect(suites.ResamplingSuite, "test_is_a_module_with_conv2d", "builds no pggan_kit.Downsample")
class PlainPooling(Area):
    def down(self, channels: int, factor: int) -> Any:
        return nn.AvgPool2d(factor)


class Dropping(AreaDownsample):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x), 0.5)


@defect(suites.ResamplingSuite, "test_same_input_same_output", "down with factor 2 and 1 channels gives two outputs")
class RandomDown(Area):
    def down(self, channels: int, factor: int) -> Any:
        return Dropping(factor)


class RolledDown(AreaDownsample):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.roll(1, 0))


@defect(suites.ResamplingSuite, "test_samples_stay_apart", "down with factor 2 .*: the map of a sample depends on")
class RollsFeatures(Area):
    def down(self, channels: int, factor: int) -> Any:
        return RolledDown(factor)


class Doubled(NearestUpsample):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@defect(
    suites.ResamplingSuite, "test_keeps_brightness", "up with factor 2 .* turns a constant 1 into numbers from 2 to"
)
class Doubles(Area):
    def up(self, channels: int, factor: int) -> Any:
        return Doubled(factor)


class Shifted(NearestUpsample):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).roll(self.factor // 2, 3)


@defect(suites.ResamplingSuite, "test_keeps_place", "up with factor 2 .* shifts what it shows by .* and 0.5 columns")
class ShiftsHalfAPixel(Area):
    def up(self, channels: int, factor: int) -> Any:
        return Shifted(factor)


class Mirrored(AreaDownsample):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flip(3))


@defect(suites.ResamplingSuite, "test_keeps_place", "down with factor 2 .*, or mirrors it")
class Mirrors(Area):
    def down(self, channels: int, factor: int) -> Any:
        return Mirrored(factor)


class WrongFusion(NearestUpsample):
    def conv2d(self, x: Tensor, weight: Tensor) -> Tensor:
        return self(F.conv2d(x, weight, padding=weight.shape[-1] // 2))


@defect(
    suites.ResamplingSuite, "test_fused_convolution", "a 3x3 kernel differs from up and convolution one after the other"
)
class FusedInTheWrongOrder(Area):
    def up(self, channels: int, factor: int) -> Any:
        return WrongFusion(factor)


@defect(suites.ResamplingSuite, "test_fused_convolution", "in its gradient to the weight")
class FusedWithoutItsWeight(Area):
    def down(self, channels: int, factor: int) -> Any:
        return HalfCut(factor)


class HalfCut(AreaDownsample):
    def conv2d(self, x: Tensor, weight: Tensor) -> Tensor:
        return super().conv2d(x, (weight + weight.detach()) / 2)


def augmentation_defect(method: str, says: str) -> Callable[[Any], Any]:
    return defect(suites.AugmentationSuite, method, says)


@augmentation_defect("test_shapes", r"of 1 images 4x4 with 1 channels returns .*\(1, 3, 4, 4\)")
class Colours(Flip):
    def __call__(self, images: Tensor) -> Tensor:
        return images.expand(-1, 3, -1, -1)


@augmentation_defect("test_shapes", "changes its input in place")
class Inverts(Flip):
    def __call__(self, images: Tensor) -> Tensor:
        return images.mul_(-1)


@augmentation_defect("test_differentiable", "not differentiable: its output is cut off")
class ThroughNumPy(Flip):
    def __call__(self, images: Tensor) -> Tensor:
        return torch.from_numpy(images.detach().numpy()[..., ::-1].copy())


@augmentation_defect("test_random_by_torch_alone", "under the same torch seed are augmented in two ways")
class PythonRandom(Flip):
    def __call__(self, images: Tensor) -> Tensor:
        return images * (1 + random.random())


@augmentation_defect("test_random_by_torch_alone", "reals and fakes would not be treated alike")
class EveryOther(Flip):
    calls = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.calls += 1
        return images * self.calls


@augmentation_defect("test_samples_stay_apart", "the augmented image of a sample depends on the others of its batch")
class CutMix(Flip):
    def __call__(self, images: Tensor) -> Tensor:
        share = torch.rand(len(images), 1, 1, 1)
        return share * images + (1 - share) * images.flip(0)


@augmentation_defect("test_gradcheck", "is not its derivative")
class HalvesGradients(Flip):
    def __call__(self, images: Tensor) -> Tensor:
        return HalfGradient.apply(images)


@pytest.mark.parametrize("case", DEFECTS, ids=name_case)
def test_a_defect_is_reported(case: Defect) -> None:
    check_reported(case)
