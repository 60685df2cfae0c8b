"""The shipped features: the accuracy of the digit classifiers, and how Inception uses torch-fidelity."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from pggan_kit.data.resizing import resize_to_all
from pggan_kit.errors import DataError
from pggan_kit.testing import FeatureExtractorSuite
from pggan_plugins.datasets import MNIST
from pggan_plugins.features import DigitClasses, Digits, Inception
from pggan_plugins.features.colour_channels import repeat_gray
from pggan_plugins.features.digits import WEIGHTS
from pggan_plugins.features.inception import MODULE

SIZES = ((7, 7), (14, 14), (28, 28))


class TestDigits(FeatureExtractorSuite):
    bad_arguments = ({"variant": "c"},)
    sizes = SIZES

    def make(self) -> Digits:
        return Digits()


class TestDigitsB(FeatureExtractorSuite):
    sizes = SIZES

    def make(self) -> Digits:
        return Digits("b")


class TestDigitClasses(FeatureExtractorSuite):
    bad_arguments = ({"variant": "c"},)
    sizes = SIZES

    def make(self) -> DigitClasses:
        return DigitClasses()


def load_bundled(size: int, every: int = 10) -> tuple[Tensor, Tensor]:
    """Return every tenth of the bundled digits in [-1, 1], and their labels."""
    digits = MNIST()
    rows = range(0, len(digits), every)
    images = [image for i in rows for _, image in resize_to_all(digits.image(i), [(size, size)], "area")]
    return torch.from_numpy(np.stack(images)) / 127.5 - 1, torch.tensor([digits.label(i) for i in rows])


def read_accuracies(variant: str) -> dict[str, dict[str, float]]:
    with safe_open(str(WEIGHTS / f"{variant}.safetensors"), "pt") as file:
        return {name: json.loads(file.metadata()[f"{name}_accuracy"]) for name in ("tuning", "test")}


@pytest.mark.parametrize("variant", ["a", "b"])
@pytest.mark.parametrize("size", [7, 14, 28])
def test_digits_are_classified(variant: str, size: int) -> None:
    """The accuracy is at least that on unseen digits, less the uncertainty of 1,000 digits."""
    images, labels = load_bundled(size)
    right = float((DigitClasses(variant)(images).argmax(1) == labels).double().mean())
    assert right >= read_accuracies(variant)["test"][str(size)] - 0.015
    assert right > 0.95


def test_their_readme_states_the_accuracies() -> None:
    stated = re.findall(r"^\| (\w) \| (\d+)x\d+ \| ([\d.]+) % \|", (WEIGHTS / "README.md").read_text(), re.MULTILINE)
    wanted = [(v, size, f"{100 * share:.2f}") for v in "ab" for size, share in read_accuracies(v)["test"].items()]
    assert stated == wanted


def test_two_variants_are_unlike() -> None:
    """Their features differ, and so do their weights' names and shapes: not one network under two names."""
    images, _ = load_bundled(28, every=500)
    one = Digits("a")
    other = Digits("b")
    assert one.fingerprint() != other.fingerprint() != DigitClasses("b").fingerprint()
    assert not torch.allclose(one(images), other(images), atol=0.1)


def test_probabilities_follow_from_the_features() -> None:
    images, _ = load_bundled(14, every=500)
    features = Digits()
    classes = DigitClasses()
    assert features(images).shape == (20, 64)
    last = features._nets[14].last
    assert torch.allclose(last(features(images)).softmax(1), classes(images), atol=1e-6)
    assert torch.allclose(classes(images).sum(1), torch.ones(20), atol=1e-5)


def test_colour_digits_are_averaged() -> None:
    images, _ = load_bundled(28, every=1000)
    colour = torch.cat([images - 0.2, images, images + 0.2], 1)
    assert torch.allclose(Digits()(colour), Digits()(images), atol=1e-3)


@pytest.mark.parametrize("channels", [2, 4, 7])
def test_what_is_no_photograph_is_refused_with_what_to_bring(channels: int) -> None:
    """Means over channels that are no colours are pictures of nothing."""
    images = torch.zeros(2, channels, 14, 14)
    for features in (Digits(), DigitClasses(), lambda own: repeat_gray(own, "Inception")):
        with pytest.raises(DataError, match=rf"knows photographs of 1 or 3 .* have {channels}: bring features of your"):
            features(images)


@pytest.mark.parametrize("size", [(8, 8), (28, 14)])
def test_other_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=rf"7x7, 14x14 and 28x28 pixels, and is given {size[0]}x{size[1]}"):
        Digits()(torch.zeros(2, 1, *size))


def test_a_run_of_other_sizes_is_refused(rejected: Any) -> None:
    rejected(
        r"features\.Digits knows digits of 7x7, 14x14 and 28x28 pixels, and is given 4x4",
        "train.metrics = [@metrics.FrechetDistance()]",
        "metrics.FrechetDistance.features = @features.Digits()",
    )


def test_digits_without_safetensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(DataError, match=r"features.Digits needs .*pip install 'pggan_kit\[metrics\]'"):
        Digits()


class StandIn:
    """A stand-in with the parameters of torch-fidelity's extractor."""

    made: tuple[Any, ...] = ()

    def __init__(self, name: str, features: list[str], weights: str | None = None) -> None:
        type(self).made = (features, weights)

    def to(self, device: Any) -> StandIn:
        return self

    def __call__(self, images: Tensor) -> tuple[Tensor]:
        assert images.dtype == torch.uint8 and images.shape[1] == 3
        return (images.float().mean((2, 3)).repeat(1, 700)[:, :2048],)


@pytest.fixture
def fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(MODULE)
    module.FeatureExtractorInceptionV3 = StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, MODULE, module)


@pytest.mark.usefixtures("fidelity")
class TestInception(FeatureExtractorSuite):
    def make(self) -> Inception:
        return Inception()


@pytest.mark.usefixtures("fidelity")
def test_inception_is_given_bytes(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "weights.pth")
    extractor = Inception(str(tmp_path / "weights.pth"))
    assert StandIn.made == (["2048"], str(tmp_path / "weights.pth"))
    gray = torch.tensor([-1.5, -1.0, 0.0, 1.0]).view(4, 1, 1, 1).expand(4, 1, 8, 8)
    assert extractor(gray)[:, :3].tolist() == [[0.0] * 3, [0.0] * 3, [128.0] * 3, [255.0] * 3]
    assert extractor.fingerprint() != Inception().fingerprint()
    assert StandIn.made == (["2048"], None)


@pytest.mark.usefixtures("fidelity")
def test_weights_that_are_code_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": StandIn}, tmp_path / "weights.pth")
    for name in ("weights.pth", "missing.pth"):
        with pytest.raises(DataError, match=r"features.Inception.weights: .* cannot be read as a file of weights"):
            Inception(str(tmp_path / name))


def test_inception_without_torch_fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MODULE, None)
    with pytest.raises(
        DataError, match=r"features.Inception needs torch-fidelity .*pip install 'pggan_kit\[fidelity\]'"
    ):
        Inception()


@pytest.mark.skipif(importlib.util.find_spec("torch_fidelity") is None, reason="torch-fidelity is not installed")
def test_inception_is_torch_fidelitys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real network with random weights. torchvision, which it imports and does not use, may be missing."""
    names = ["", ".transforms", ".transforms.functional", ".datasets", ".models"]
    if importlib.util.find_spec("torchvision") is None:
        for name in names:
            monkeypatch.setitem(sys.modules, f"torchvision{name}", MagicMock())
    for name in [name for name in sys.modules if name.startswith("torch_fidelity")]:
        monkeypatch.delitem(sys.modules, name)
    module = importlib.import_module(MODULE)
    for name in [name for name in sys.modules if name.startswith("torch_fidelity")]:
        # Set them again, so that monkeypatch removes them after this test: they refer to the stand-ins.
        monkeypatch.setitem(sys.modules, name, sys.modules.pop(name))
    net_class = module.FeatureExtractorInceptionV3
    with monkeypatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(net_class, "load_state_dict", lambda self, content: None)
        net = net_class("random", ["2048"])
    torch.save({key: value.half() for key, value in net.state_dict().items()}, tmp_path / "weights.pth")
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    actual = Inception(str(tmp_path / "weights.pth"))(images)
    (wanted,) = net.half().float()(((images + 1) * 127.5).round().byte().expand(-1, 3, -1, -1))
    assert actual.shape == (2, 2048)
    assert torch.allclose(actual, wanted, rtol=1e-4, atol=1e-5)
