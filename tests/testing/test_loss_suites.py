"""Broken losses, penalties and data sets fail their suites, with messages that say what is wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.defects import (
    Contrast,
    Defect,
    Defects,
    HalfGradient,
    SpentShare,
    SquaredScores,
    check_reported,
    make_suite,
    name_case,
)
from torch import Tensor

import pggan_kit.testing as suites
from pggan_kit import Fakes, Scores, SkipImage, generator_gradients
from pggan_kit.testing.toys import ToyDataset, ToyLoss
from pggan_kit.training.step import image_gradients

DEFECTS = Defects()
defect = DEFECTS.register


def loss_defect(method: str, says: str) -> Callable[[Any], Any]:
    return defect(suites.LossSuite, method, says)


@loss_defect("test_terms", r"generator\(\)'s term 'logistic' for a batch of 1 is no 0-dim tensor")
class NoMean(ToyLoss):
    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        return {"logistic": F.softplus(-fake.score)}


@loss_defect("test_gradients_flow", r"no gradient flows from discriminator\(\) to the fake scores")
class LooksAtRealsOnly(ToyLoss):
    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        return {"logistic": F.softplus(-real.score).mean()}


@loss_defect("test_directions", r"generator\(\) does not fall as the fakes' scores rise: the sign is wrong")
class WrongSign(ToyLoss):
    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        return {"logistic": F.softplus(fake.score).mean()}


@loss_defect("test_is_a_mean", "must be means over samples, or over pairs of real i and fake i")
class Sums(ToyLoss):
    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        return {"logistic": F.softplus(-fake.score).sum()}


@loss_defect("test_is_a_mean", r"discriminator\(\) of a batch is .*, and the mean over its slices is")
class DividesByTheSpread(ToyLoss):
    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        spread = torch.cat([real.score, fake.score]).std(unbiased=False)
        return {"scaled": (fake.score - real.score).mean() / spread}


class Classifies(ToyLoss):
    """A sound loss whose classes count in both terms."""

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        return {**super().discriminator(real, fake), "classes": compute_cross_entropy(real)}

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        return {**super().generator(fake, real), "classes": compute_cross_entropy(fake)}


def compute_cross_entropy(scores: Scores) -> Tensor:
    assert scores.class_logits is not None and scores.labels is not None
    return F.cross_entropy(scores.class_logits, scores.labels)


@defect(suites.LossSuite, "test_classes", r"discriminator\(\) rises as the class logits of the reals' own", classes=3)
class AvoidsTheClass(ToyLoss):
    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        return {**super().discriminator(real, fake), "classes": -compute_cross_entropy(real)}


@defect(suites.LossSuite, "test_leaves_scores_alone", r"discriminator\(\) changes the scores in place", classes=3)
class ForgetsLogits(ToyLoss):
    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        assert real.class_logits is not None
        real.class_logits.mul_(0)
        return super().discriminator(real, fake)


class ClassifiesSuite(suites.LossSuite):
    classes = 3

    def make(self) -> Classifies:
        return Classifies()


def test_means_over_samples_of_classes_pass() -> None:
    """A slice of a batch has each of its samples' logits and label."""
    ClassifiesSuite().test_is_a_mean()
    ClassifiesSuite().test_classes()
    ClassifiesSuite().test_leaves_scores_alone()


@loss_defect("test_gradcheck", r"generator\(\): its gradient is not its derivative")
class WrongGradient(ToyLoss):
    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        return {"logistic": F.softplus(-HalfGradient.apply(fake.score)).mean()}


class FrozenSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * 3 * x.detach() ** 2


@loss_defect("test_gradcheck", r"discriminator\(\): the derivative of its gradient is wrong")
class WrongSecondOrder(ToyLoss):
    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        return {"cubic": FrozenSlope.apply(fake.score - real.score).mean()}


@loss_defect("test_extreme_scores", "use softplus or logsigmoid")
class Overflows(ToyLoss):
    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        return {"logistic": torch.log(1 + torch.exp(-fake.score)).mean()}


@loss_defect("test_leaves_scores_alone", "changes the scores in place")
class InPlace(ToyLoss):
    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        return {"logistic": F.softplus(-fake.score.mul_(2)).mean()}


@loss_defect("test_keeps_its_protocol", r"penalties\[0\] \(object\) is not a valid Penalty")
class BadPenalties(ToyLoss):
    def __init__(self) -> None:
        self.penalties = (object(),)  # type: ignore[assignment]


def penalty_defect(method: str, says: str) -> Callable[[Any], Any]:
    return defect(suites.PenaltySuite, method, says)


@penalty_defect("test_value", "is no 0-dim tensor")
class OnePerSample(SquaredScores):
    def __call__(self, critic: Any, real: Tensor, fake: Tensor, rs: Scores, fs: Scores, mix: Tensor) -> Tensor:
        return rs.score.square()


@penalty_defect("test_runs_critic", "runs_critic is False, and the penalty calls the critic")
class HidesItsCalls(SquaredScores):
    runs_critic = False

    def __call__(self, critic: Any, real: Tensor, fake: Tensor, *args: Any) -> Tensor:
        return super().__call__(critic, real, fake, critic(fake), *args[1:])


@penalty_defect("test_gradients_flow", "nothing is penalised")
class Detached(SquaredScores):
    def __call__(self, *args: Any) -> Tensor:
        return super().__call__(*args).detach()


@penalty_defect("test_gradcheck", "as a function of the critic's weights: its gradient is not its derivative")
class FirstOrderOnly(SquaredScores):
    """The usual mistake: gradients taken without create_graph."""

    def __call__(self, critic: Any, real: Tensor, fake: Tensor, rs: Scores, fs: Scores, mix: Tensor) -> Tensor:
        x = real.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(critic(x).score.sum(), x)
        return gradient.square().sum((1, 2, 3)).mean() + 0 * rs.score.sum()


@penalty_defect("test_is_a_mean", "it must be a mean over samples")
class SumOverBatch(SquaredScores):
    def __call__(self, critic: Any, real: Tensor, fake: Tensor, rs: Scores, fs: Scores, mix: Tensor) -> Tensor:
        return rs.score.square().sum()


@penalty_defect("test_is_a_mean", "the penalty of a batch is .*, and the mean over its slices is")
class SpreadOfScores(SquaredScores):
    def __call__(self, critic: Any, real: Tensor, fake: Tensor, rs: Scores, fs: Scores, mix: Tensor) -> Tensor:
        return (rs.score - rs.score.mean()).square().mean()


def set_weight(weight: Any) -> SquaredScores:
    penalty = SquaredScores()
    penalty.weight = weight
    return penalty


@dataclass(frozen=True)
class FrozenPenalty:
    weight: float = 1.0
    every: int = 1

    def __call__(self, *args: Any) -> Tensor:
        return SquaredScores()(*args)


@pytest.mark.parametrize("weight", [{4: 1.0, 8: 0.5}, SpentShare()], ids=["per stage", "a curve"])
def test_a_weight_that_is_no_number_passes(weight: Any) -> None:
    penalties = [set_weight(weight) for _ in range(2)]
    left = iter(penalties)
    make_suite(suites.PenaltySuite, lambda: next(left)).test_leaves_weight_to_the_update()

    contrast = Contrast()
    contrast.weight = weight
    make_suite(suites.GeneratorPenaltySuite, lambda: copy.copy(contrast)).test_leaves_weight_to_the_core()
    assert penalties[0].weight == contrast.weight == weight


def test_a_frozen_penalty_passes() -> None:
    make_suite(suites.PenaltySuite, FrozenPenalty).test_leaves_weight_to_the_update()


@penalty_defect("test_leaves_weight_to_the_update", "weight is -0.5, below 0")
def weighs_below_0_later() -> SquaredScores:
    return set_weight({4: 1.0, 8: -0.5})


@penalty_defect("test_leaves_weight_to_the_update", "so they count twice")
class WeighsItself(SquaredScores):
    def __call__(self, *args: Any) -> Tensor:
        return self.weight * super().__call__(*args)


@penalty_defect("test_flat_critic", "a norm has no derivative at 0")
class RootOfZero(SquaredScores):
    def __call__(self, critic: Any, real: Tensor, fake: Tensor, rs: Scores, fs: Scores, mix: Tensor) -> Tensor:
        return (image_gradients(critic, real).square().sum((1, 2, 3)).sqrt() - 1).square().mean()


def generator_penalty_defect(method: str, says: str) -> Callable[[Any], Any]:
    return defect(suites.GeneratorPenaltySuite, method, says)


@generator_penalty_defect("test_value", "is no 0-dim tensor")
class OnePerFake(Contrast):
    def __call__(self, fakes: Fakes) -> Tensor:
        return fakes.images.square().mean((1, 2, 3))


@generator_penalty_defect("test_gradients_flow", "nothing is penalised")
class DetachedFakes(Contrast):
    def __call__(self, fakes: Fakes) -> Tensor:
        return super().__call__(fakes).detach()


@generator_penalty_defect("test_gradcheck", "as a function of G's weights: its gradient is not its derivative")
class FirstOrderOfFakes(Contrast):
    """The usual mistake: gradients taken without create_graph."""

    def __call__(self, fakes: Fakes) -> Tensor:
        (gradient,) = torch.autograd.grad(fakes.images.sum(), fakes.latents, retain_graph=True)
        return gradient.square().sum(1).mean() + 0 * fakes.images.sum()


@generator_penalty_defect("test_is_a_mean", "it must be a mean over samples, or over pairs")
class SumOverFakes(Contrast):
    def __call__(self, fakes: Fakes) -> Tensor:
        return fakes.images.square().sum()


@generator_penalty_defect("test_leaves_weight_to_the_core", "so they count twice")
class WeighsItsFakes(Contrast):
    def __call__(self, fakes: Fakes) -> Tensor:
        return self.weight * super().__call__(fakes)


@generator_penalty_defect("test_flat_generator", "a norm has no derivative at 0")
class RootOfFlatFakes(Contrast):
    def __call__(self, fakes: Fakes) -> Tensor:
        gradients = generator_gradients(fakes.images.sum(), fakes.latents)
        return (gradients.square().sum(1).sqrt() - 1).square().mean()


@generator_penalty_defect("test_memory", "which `remember` alone may")
class RemembersInTheCall(Contrast):
    def __call__(self, fakes: Fakes) -> Tensor:
        value = super().__call__(fakes)
        self.remember(value.detach().float())
        return value


@generator_penalty_defect("test_memory", "passes no numbers")
class MeasuresNothing(Contrast):
    def __call__(self, fakes: Fakes) -> Tensor:
        return fakes.images.square().mean()


@generator_penalty_defect("test_memory", "does not change the 0-dim memory")
class ForgetsAtOnce(Contrast):
    def remember(self, mean: Tensor) -> None:
        pass


def dataset_defect(method: str, says: str) -> Callable[[Any], Any]:
    return defect(suites.DatasetSuite, method, says)


@dataset_defect("test_length", "the data set is empty")
class Empty(ToyDataset):
    def __len__(self) -> int:
        return 0


@dataset_defect("test_images", r"image\(0\) is int64, not uint8, uint16, int16 or float32")
class Integers(ToyDataset):
    def image(self, i: int) -> np.ndarray:
        return super().image(i).astype(np.int64)


@dataset_defect("test_images", r"image\(0\) has numbers that are NaN or infinite")
class NotFinite(ToyDataset):
    def image(self, i: int) -> np.ndarray:
        return np.full((8, 8, 1), np.nan, np.float32)


@dataset_defect("test_images", "some images are float32 and some uint8")
class SomeFloats(ToyDataset):
    def image(self, i: int) -> np.ndarray:
        return super().image(i).astype(np.float32 if i % 2 else np.uint8)


@dataset_defect("test_images", r"has shape \(8, 8\), not \(H, W, C\)")
class Flat(ToyDataset):
    def image(self, i: int) -> np.ndarray:
        return super().image(i)[..., 0]


@dataset_defect("test_images", "some images have 1 channels and some 3")
class SomeColour(ToyDataset):
    def image(self, i: int) -> np.ndarray:
        return super().image(i).repeat(3 if i % 2 else 1, 2)


@dataset_defect("test_labels", r"label\(15\) is 15, outside \[0, 3\)")
class LabelsTooLarge(ToyDataset):
    classes = 3

    def __init__(self) -> None:
        super().__init__(3)

    def label(self, i: int) -> int:
        return i if i == 15 else 0


@dataset_defect("test_labels", r"label\(\d+\) is not the same each time it is read")
class LabelsByChance(ToyDataset):
    def __init__(self) -> None:
        super().__init__(3)
        self.random = np.random.default_rng(0)

    def label(self, i: int) -> int:
        return int(self.random.integers(3))


@dataset_defect("test_labels", "classes is 1: a single class says nothing")
class OneClass(ToyDataset):
    def __init__(self) -> None:
        super().__init__(1)


@dataset_defect("test_images", "each of the images .* is left out")
class LeavesAllOut(ToyDataset):
    def image(self, i: int) -> np.ndarray:
        raise SkipImage("broken")


class LeavesOneOut(ToyDataset):
    """A sound data set with a broken file, in which the label is as well."""

    def image(self, i: int) -> np.ndarray:
        self._read(i)
        return super().image(i)

    def label(self, i: int) -> int:
        self._read(i)
        return super().label(i)

    def image_mode(self, i: int) -> str:
        self._read(i)
        return "L"

    def _read(self, i: int) -> None:
        if i == 15:
            raise SkipImage("broken")


class CountsWithNumPy(ToyDataset):
    """A sound data set whose numbers are NumPy's."""

    def __init__(self) -> None:
        super().__init__()
        self.classes = np.array([0, 1, 2]).max() + 1
        self.left_out = {".txt": np.int32(2)}

    def label(self, i: int) -> int:
        return np.int16(super().label(i))


@pytest.mark.parametrize("dataset", [LeavesOneOut, CountsWithNumPy])
def test_a_data_set_may_leave_images_out_and_count_with_numpy(dataset: type) -> None:
    suite = make_suite(suites.DatasetSuite, dataset)
    for name in dir(suite):
        if name.startswith("test_"):
            getattr(suite, name)()


@dataset_defect("test_same_image_each_time", "not the same each time it is read")
class LeavesOutByTurns(ToyDataset):
    turns = 0

    def image(self, i: int) -> np.ndarray:
        self.turns += 1
        if self.turns % 2:
            raise SkipImage("broken")
        return super().image(i)


@dataset_defect("test_class_names", "class_names has 1 names for 3 classes")
class Misnamed(ToyDataset):
    class_names: ClassVar[list[str]] = ["cat"]

    def __init__(self) -> None:
        super().__init__(3)


@dataset_defect("test_left_out", r"left_out is \['.HEIC'\], no numbers from 1 up by kind")
class LeftOutWithoutNumbers(ToyDataset):
    left_out: ClassVar[list[str]] = [".HEIC"]


@dataset_defect("test_image_mode", r"image_mode\(0\) is 'grayscale', no text of at most 8 letters of ASCII")
class LongMode(ToyDataset):
    def image_mode(self, i: int) -> str:
        return "grayscale"


@dataset_defect("test_list_warnings", r"list_warnings\(\) returns 'dark', no list of texts")
class OneWarning(ToyDataset):
    def list_warnings(self) -> str:
        return "dark"


@dataset_defect("test_same_image_each_time", "not the same each time it is read")
class RandomlyFlipped(ToyDataset):
    def image(self, i: int) -> np.ndarray:
        return np.random.default_rng().permutation(super().image(i))


@dataset_defect("test_fingerprint", "made again in each run")
class NewFingerprint(ToyDataset):
    def fingerprint(self) -> str:
        return str(id(self))


@pytest.mark.parametrize("case", DEFECTS, ids=name_case)
def test_a_defect_is_reported(case: Defect) -> None:
    check_reported(case)
