"""Small classifiers of digits, trained by `scripts/train_digits.py`, whose features tell digits apart."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from pggan_kit import DataError, Run, check_choice, hookimpl

WEIGHTS = Path(__file__).with_name("digits")
SIZES = (7, 14, 28)
FEATURES = 64


class Digits:
    """Features of handwritten digits: what a small classifier computes before its last layer.

    There is one for each of 7x7, 14x14 and 28x28, trained on the first 50,000 MNIST training digits; how often each is
    right is in `plugins/features/digits/README.md`. Needs the extra `metrics`.

    Args:
        variant: `a`, or `b`: other networks, trained from another seed, to confirm what `a` says.

    Raises:
        ValueError: an argument out of range.
        DataError: the library `safetensors` is missing.
    """

    def __init__(self, variant: str = "a") -> None:
        check_choice("variant", variant, tuple(VARIANTS))
        self.variant = variant
        path = WEIGHTS / f"{variant}.safetensors"
        self._fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()
        self._nets = _load(path, VARIANTS[variant])

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, h, w) in [-1, 1] -> (N, 64). Colour is averaged to gray.

        Raises:
            DataError: images of another size than the classifiers know.
        """
        net, gray = self._prepared(images)
        with torch.no_grad():
            features: Tensor = net.features(gray)
        return features

    def fingerprint(self) -> str:
        """The SHA-256 of the weights."""
        return f"{type(self).__name__} {self.variant} {self._fingerprint}"

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Check the sizes of the run.

        Raises:
            DataError: one that the classifiers do not know.
        """
        for stage in run.schedule.stages:
            _require_size(stage.height, stage.width)

    def _prepared(self, images: Tensor) -> tuple[Classifier, Tensor]:
        """The classifier for these images, where they are, and the images in gray."""
        _require_size(*images.shape[2:])
        net = self._nets[images.shape[-1]].to(images.device)
        return net, images.float().mean(1, keepdim=True)


class DigitClasses(Digits):
    """How likely an image shows each digit: the whole classifiers of `features.Digits`. Needs the extra `metrics`.

    Args:
        variant: see `features.Digits`.
    """

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, h, w) in [-1, 1] -> (N, 10), each row with the sum 1."""
        net, gray = self._prepared(images)
        with torch.no_grad():
            return net(gray).softmax(1)


class Classifier(nn.Module):
    """Gray images (N, 1, size, size) in [-1, 1] -> logits (N, 10) of the digits."""

    def __init__(self, body: nn.Sequential, activation: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.last = nn.Sequential(activation, nn.Linear(FEATURES, 10))

    def features(self, images: Tensor) -> Tensor:
        """(N, 1, size, size) -> (N, 64): before the last activation, where they are nearly Gaussian."""
        found: Tensor = self.body(images)
        return found

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(self.features(images))
        return logits


def variant_a(size: int) -> Classifier:
    """3x3 convolutions with batch norm and ReLU, strides down to 7x7, 2x2 means. About 41,000 parameters."""
    strides = {7: (1, 1), 14: (1, 2), 28: (2, 2)}[size]
    body = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, strides[0], padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 48, 3, strides[1], padding=1), nn.BatchNorm2d(48), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(192, FEATURES)),
    )
    return Classifier(body, nn.ReLU())


def variant_b(size: int) -> Classifier:
    """5x5 and 3x3 convolutions with GELU, maxima down to 3x3. About 34,000 parameters."""
    pools = {7: (1, 1), 14: (1, 2), 28: (2, 2)}[size]
    body = nn.Sequential(
        *(nn.Conv2d(1, 12, 5, padding=2), nn.GELU(), nn.MaxPool2d(pools[0])),
        *(nn.Conv2d(12, 24, 5, padding=2), nn.GELU(), nn.MaxPool2d(pools[1])),
        *(nn.Conv2d(24, 32, 3, padding=1), nn.GELU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(288, FEATURES)),
    )
    return Classifier(body, nn.GELU())


VARIANTS = {"a": variant_a, "b": variant_b}


def _load(path: Path, make: Callable[[int], Classifier]) -> dict[int, Classifier]:
    """The classifiers by size, in inference mode, from a file with their weights as float16."""
    try:
        weights = importlib.import_module("safetensors.torch").load_file(path)
    except ImportError as error:
        raise DataError(
            f"features.Digits needs the library `safetensors` ({error}): pip install 'pggan_kit[metrics]'"
        ) from error
    nets = {}
    for size in SIZES:
        nets[size] = make(size).eval().requires_grad_(False)
        prefix = f"{size}."
        own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        nets[size].load_state_dict(own)
    return nets


def _require_size(height: int, width: int) -> None:
    if height != width or height not in SIZES:
        raise DataError(
            f"features.Digits knows digits of 7x7, 14x14 and 28x28 pixels, and is given {height}x{width}: choose other "
            "features, or other schedule.sizes"
        )
