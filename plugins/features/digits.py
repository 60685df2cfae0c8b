"""Features of small classifiers of digits, which `scripts/train_digits.py` has trained."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from pggan_kit import DataError, Run, check_choice, hookimpl

from .colour_channels import require_photographs

WEIGHTS = Path(__file__).with_name("digits")
SIZES = (7, 14, 28)
FEATURES = 64


class Digits:
    """Features of handwritten digits: the activations of a small classifier before its last layer.

    There is one classifier for each of 7x7, 14x14 and 28x28, trained on the first 50,000 MNIST training digits; their
    accuracies are in `plugins/features/digits/README.md`. Needs the extra `metrics`.

    Args:
        variant: `a`, or `b`: other networks, trained from another seed, to confirm results of `a`.

    Raises:
        ValueError: An argument out of range.
        DataError: A missing library `safetensors`.
    """

    def __init__(self, variant: str = "a") -> None:
        check_choice("variant", variant, tuple(VARIANTS))
        self.variant = variant
        path = WEIGHTS / f"{variant}.safetensors"
        self._fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()
        self._nets = _load_classifiers(path, VARIANTS[variant])

    def __call__(self, images: Tensor) -> Tensor:
        """Return features (N, 64) of images (N, C, h, w) in [-1, 1]. Colour is averaged to gray.

        Raises:
            DataError: Images of a size that has no classifier, or of neither 1 nor 3 channels.
        """
        net = self._select_classifier(images)
        with torch.no_grad():
            features: Tensor = net.features(_average_channels(images, type(self).__name__))
        return features

    def fingerprint(self) -> str:
        """Return the class, the variant and the SHA-256 of the weights."""
        return f"{type(self).__name__} {self.variant} {self._fingerprint}"

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Check the sizes of the run.

        Raises:
            DataError: A size that has no classifier.
        """
        for stage in run.schedule.stages:
            _require_size(stage.height, stage.width, type(self).__name__)

    def _select_classifier(self, images: Tensor) -> Classifier:
        """Return the classifier for the size of these images, on their device."""
        height, width = images.shape[2:]
        _require_size(height, width, type(self).__name__)
        return self._nets[images.shape[-1]].to(images.device)


class DigitClasses(Digits):
    """The probability that an image shows each digit, by the classifiers of `features.Digits`. Needs the extra
    `metrics`.

    Args:
        variant: The variant of `features.Digits`.
    """

    def __call__(self, images: Tensor) -> Tensor:
        """Return probabilities (N, 10), each row with the sum 1, of images (N, C, h, w) in [-1, 1]."""
        net = self._select_classifier(images)
        with torch.no_grad():
            return net(_average_channels(images, type(self).__name__)).softmax(1)


class Classifier(nn.Module):
    """A classifier of gray images (N, 1, size, size) in [-1, 1], which returns logits (N, 10) of the digits."""

    def __init__(self, body: nn.Sequential, activation: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.last = nn.Sequential(activation, nn.Linear(FEATURES, 10))

    def features(self, images: Tensor) -> Tensor:
        """Return features (N, 64) before the last activation, where they are nearly Gaussian."""
        features: Tensor = self.body(images)
        return features

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(self.features(images))
        return logits


def build_variant_a(size: int) -> Classifier:
    """Build 3x3 convolutions with batch norm and ReLU, strides down to 7x7, 2x2 means. About 41,000 parameters."""
    strides = {7: (1, 1), 14: (1, 2), 28: (2, 2)}[size]
    body = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, strides[0], padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 48, 3, strides[1], padding=1), nn.BatchNorm2d(48), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(192, FEATURES)),
    )
    return Classifier(body, nn.ReLU())


def build_variant_b(size: int) -> Classifier:
    """Build 5x5 and 3x3 convolutions with GELU, maxima down to 3x3. About 34,000 parameters."""
    pools = {7: (1, 1), 14: (1, 2), 28: (2, 2)}[size]
    body = nn.Sequential(
        *(nn.Conv2d(1, 12, 5, padding=2), nn.GELU(), nn.MaxPool2d(pools[0])),
        *(nn.Conv2d(12, 24, 5, padding=2), nn.GELU(), nn.MaxPool2d(pools[1])),
        *(nn.Conv2d(24, 32, 3, padding=1), nn.GELU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(288, FEATURES)),
    )
    return Classifier(body, nn.GELU())


VARIANTS = {"a": build_variant_a, "b": build_variant_b}


def _load_classifiers(path: Path, build: Callable[[int], Classifier]) -> dict[int, Classifier]:
    """Load the classifiers by size, in inference mode, from a file with their weights as float16.

    Raises:
        DataError: A missing library `safetensors`.
    """
    try:
        weights = importlib.import_module("safetensors.torch").load_file(path)
    except ImportError as error:
        raise DataError(
            f"features.Digits needs the library `safetensors` ({error}): pip install 'pggan_kit[metrics]'"
        ) from error

    nets = {}
    for size in SIZES:
        nets[size] = build(size).eval().requires_grad_(False)
        # One file holds the weights of all sizes, under the size as a prefix.
        prefix = f"{size}."
        own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        nets[size].load_state_dict(own)
    return nets


def _average_channels(images: Tensor, name: str) -> Tensor:
    """Average images (N, 1 or 3, h, w) to gray (N, 1, h, w) in float32.

    Raises:
        DataError: They have another number of channels.
    """
    require_photographs(images, name)
    return images.float().mean(1, keepdim=True)


def _require_size(height: int, width: int, name: str) -> None:
    """Check that there is a classifier for a size.

    Raises:
        DataError: Another size.
    """
    if height != width or height not in SIZES:
        raise DataError(
            f"features.{name} knows digits of 7x7, 14x14 and 28x28 pixels, and is given {height}x{width}: choose other "
            "features, or other schedule.sizes"
        )
