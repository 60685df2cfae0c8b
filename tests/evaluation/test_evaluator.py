"""The evaluator alone: when it measures, what it shows to a generator, and what it leaves untouched."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pggan_kit import Quantity
from pggan_kit.components import ImageMetric, StageEnd
from pggan_kit.errors import DataError, TrainingError
from pggan_kit.evaluation.description_cache import DescriptionCache
from pggan_kit.evaluation.evaluator import Evaluator, RealSet, draw_fakes, measure_run
from pggan_kit.evaluation.settings import EvaluationSettings


class LearnedMetric:
    """A metric whose features have weights that could be trained."""

    def __init__(self) -> None:
        self.quantities = {"Learned": Quantity("lower")}
        self.weight = torch.ones(16, requires_grad=True)

    def describe(self, images: Tensor) -> Tensor:
        return images.flatten(1) * self.weight

    def fingerprint(self) -> str:
        return "learned"

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        return {"Learned": float((real.mean() - fake.mean()).abs())}


def derive_seed(name: str) -> int:
    """Return the documented seed of a purpose, for the seed 0."""
    digest = hashlib.blake2b(repr((0, name)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def make_evaluator(folder: Path, metric: ImageMetric | None = None, **settings: int) -> Evaluator:
    images = np.random.default_rng(0).integers(0, 256, (9, 1, 4, 4), np.uint8)
    reals = RealSet(images, np.arange(9), "nine images")
    cache = DescriptionCache(folder / "descriptions")
    metrics = [metric or LearnedMetric()]
    return Evaluator(metrics, EvaluationSettings(**settings), lambda size: reals, cache, torch.device("cpu"))


def test_labels_are_those_of_the_reals_and_leave_random_numbers_alone(tmp_path: Path) -> None:
    """Reals are described where the labels are asked for first, without gradients."""
    evaluator = make_evaluator(tmp_path, count=5)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    labels = evaluator.labels((4, 4))
    assert torch.equal(torch.rand(3), expected)
    assert labels is not None
    order = np.random.Generator(np.random.PCG64(derive_seed("evaluation"))).permutation(9)
    assert labels.tolist() == order[:5].tolist()
    assert len(list((tmp_path / "descriptions").iterdir())) == 1


class Described(LearnedMetric):
    """A metric that describes images by what a function returns."""

    def __init__(self, describe: Callable[[Tensor], Tensor | None]) -> None:
        super().__init__()
        self.describe = describe  # type: ignore[method-assign,assignment]


class EndsOfNothing:
    """A metric of a run that returns what it is given."""

    def __init__(self, returned: Any) -> None:
        self.quantities = {"Ends": Quantity("lower")}
        self.returned = returned

    def measure_run(self, ends: Sequence[StageEnd]) -> Any:
        return self.returned


def describe_by_one_row(images: Tensor) -> Tensor:
    return images.mean((0, 1, 2))[None]


def describe_by_nan(images: Tensor) -> Tensor:
    return images.flatten(1) / (images.flatten(1) + 1).clamp(max=1e-30).floor()


def describe_full_batches(images: Tensor) -> Tensor | None:
    return images.flatten(1) if len(images) == 4 else None


@pytest.mark.parametrize(
    ("describe", "message"),
    [
        (describe_by_one_row, r"^metrics\.Described describes 4 images by a tensor \(1, 4\): it must have one row"),
        (describe_by_nan, r"^metrics\.Described describes images by NaN or infinite numbers"),
        (lambda images: [0.0] * 4, r"^metrics\.Described: describe\(\) returned \[0\.0, .*, and must return a tensor"),
        (describe_full_batches, r"^metrics\.Described describes some batches and returns None for others"),
    ],
)
def test_descriptions_that_cannot_be_compared_are_refused(
    tmp_path: Path, describe: Callable[[Tensor], Tensor | None], message: str
) -> None:
    evaluator = make_evaluator(tmp_path, Described(describe), count=5, batch_size=4)
    with pytest.raises(TrainingError, match=message):
        evaluator.measure((4, 4), [torch.zeros(4, 1, 4, 4), torch.zeros(1, 1, 4, 4)])


@pytest.mark.parametrize("returned", [None, [1.0]])
def test_comparisons_that_return_no_dict_are_refused(tmp_path: Path, returned: object) -> None:
    metric = LearnedMetric()
    metric.compare = lambda real, fake: returned  # type: ignore[method-assign,assignment,return-value]
    says = r"^metrics\.LearnedMetric: compare\(\) returned .*, and must return a dict of numbers by name$"
    with pytest.raises(TrainingError, match=says):
        make_evaluator(tmp_path, metric, count=4).measure((4, 4), [torch.zeros(4, 1, 4, 4)])

    ends = EndsOfNothing(returned)
    with pytest.raises(TrainingError, match=r"^metrics\.EndsOfNothing: measure_run\(\) returned .* a dict"):
        measure_run([ends], [], torch.device("cpu"))


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_descriptions_of_half_precision_are_kept_as_float32(tmp_path: Path, precision: torch.dtype) -> None:
    for _ in range(2):  # described, and then read from the cache
        metric = Described(lambda images: images.flatten(1).to(precision))
        evaluator = make_evaluator(tmp_path, metric, count=4, batch_size=4)
        (value,) = evaluator.measure((4, 4), [torch.ones(4, 1, 4, 4)])
        assert value.floor is not None and 0 < value.value < 2
    assert len(list((tmp_path / "descriptions").iterdir())) == 1


def test_reals_that_are_too_few_leave_those_of_another_size(tmp_path: Path) -> None:
    """Else labels of one size's reals would be given out for the other."""
    images = np.zeros((9, 1, 4, 4), np.uint8)
    sets = {4: RealSet(images, np.arange(9), None), 8: RealSet(images[:1], np.arange(1), None)}
    evaluator = make_evaluator(tmp_path, count=4)
    evaluator._find_reals = lambda size: sets[size[0]]
    labels = evaluator.labels((4, 4))
    with pytest.raises(DataError, match="an evaluation needs at least"):
        evaluator.labels((8, 8))
    again = evaluator.labels((4, 4))
    assert labels is not None and again is not None and torch.equal(again, labels)


def test_fakes_are_drawn_in_batches_from_one_sequence_of_latents() -> None:
    def draw(latents: Tensor, labels: Tensor | None, seed: int) -> Tensor:
        assert labels is not None
        seeds.append(seed)
        return torch.cat([latents, labels[:, None]], dim=1)

    seeds: list[int] = []
    labels = torch.arange(7)
    batches = list(draw_fakes(draw, 3, EvaluationSettings(count=7, batch_size=3), 0, labels))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert len(set(seeds)) == 3

    (whole,) = draw_fakes(draw, 3, EvaluationSettings(count=7, batch_size=7), 0, labels)
    assert torch.equal(torch.cat(batches), whole)
    assert whole[:, 3].tolist() == labels.tolist()
