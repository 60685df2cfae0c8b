"""The evaluator alone: when it measures, what it shows to a generator, and what it leaves untouched."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pggan_kit import Quantity
from pggan_kit.evaluation.description_cache import DescriptionCache
from pggan_kit.evaluation.evaluator import Evaluator, RealSet, draw_fakes
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


def make_evaluator(folder: Path, **settings: int) -> Evaluator:
    images = np.random.default_rng(0).integers(0, 256, (9, 1, 4, 4), np.uint8)
    reals = RealSet(images, np.arange(9), "nine images")
    cache = DescriptionCache(folder / "descriptions")
    return Evaluator([LearnedMetric()], EvaluationSettings(**settings), lambda size: reals, cache, torch.device("cpu"))


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
