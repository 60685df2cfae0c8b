"""The judge of trained digits: its distance against SciPy's root of matrices, and the images that it asks for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.modules import load_module
from helpers.paths import ROOT
from scipy.linalg import sqrtm
from torch import Tensor

import pggan_kit

judge = load_module(ROOT / "scripts" / "judge_digits.py")


def test_the_distance_is_that_of_normal_distributions() -> None:
    rng = np.random.default_rng(0)
    ours = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 5))
    theirs = rng.normal(1, 2, size=(300, 5))
    first = np.cov(ours, rowvar=False)
    second = np.cov(theirs, rowvar=False)
    apart = ours.mean(0) - theirs.mean(0)
    expected = apart @ apart + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert judge.compute_frechet_distance(ours, theirs) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("classes", [0, 10])
def test_a_generator_with_classes_draws_each_equally_often(monkeypatch: pytest.MonkeyPatch, classes: int) -> None:
    asked: list[Tensor | None] = []

    class Stub(SimpleNamespace):
        def __call__(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
            asked.append(labels)
            return torch.zeros(len(latents), 1, 28, 28)

    def load_stub(run: str) -> Any:
        return Stub(latent_size=4, classes=classes)

    monkeypatch.setattr(pggan_kit, "load_generator", load_stub)
    images = torch.cat(list(judge.draw_batches("run")))
    assert images.shape == (judge.IMAGES, 1, 28, 28)
    if not classes:
        assert set(asked) == {None}
        return
    given = torch.cat([labels for labels in asked if labels is not None])
    assert torch.bincount(given).tolist() == [judge.IMAGES // classes] * classes
