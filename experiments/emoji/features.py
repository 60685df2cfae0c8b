"""Features of small classifiers of emoji, as a plugin file: `scripts/train_emoji_features.py` trains their weights.

    pggan-kit train experiments/emoji/emoji.gin --plugin experiments/emoji/features.py \
        -b "train.metrics = [@metrics.FrechetDistance()]" -b "metrics.FrechetDistance.features = @features.Emoji()" \
        -b "features.Emoji.weights = 'emoji/a.safetensors'"
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pggan_kit import Component, DataError, hookimpl

SIZE = 64
"""Height and width that the classifiers were trained at; smaller images are enlarged."""

FEATURES = 64
KERNELS = {"a": 3, "b": 5}
"""Width of the convolutions of each variant."""

CHANNELS = {"a": (32, 64, 96, 128), "b": (24, 48, 96, 96)}


class Classifier(nn.Module):
    """A classifier of images of 64x64 pixels: four strided convolutions, a mean over the pixels, two layers.

    Args:
        variant: `a` or `b`, two networks of other sizes.
        classes: Number of classes.
    """

    def __init__(self, variant: str, classes: int) -> None:
        super().__init__()
        kernel = KERNELS[variant]
        previous = 3
        layers: list[nn.Module] = []
        for channels in CHANNELS[variant]:
            layers.append(nn.Conv2d(previous, channels, kernel, stride=2, padding=kernel // 2, bias=False))
            layers.append(nn.BatchNorm2d(channels))
            layers.append(nn.LeakyReLU(0.2))
            previous = channels
        self.convolutions = nn.Sequential(*layers)
        self.hidden = nn.Linear(previous, FEATURES)
        self.last = nn.Linear(FEATURES, classes)

    def features(self, images: Tensor) -> Tensor:
        """Return features (N, 64) of images (N, 3, 64, 64) in [-1, 1]."""
        maps = self.convolutions(images)
        return F.leaky_relu(self.hidden(maps.mean((2, 3))), 0.2)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, classes) of images (N, 3, 64, 64) in [-1, 1]."""
        logits: Tensor = self.last(self.features(images))
        return logits


class Emoji:
    """Features of emoji: the activations of a small classifier of their groups before its last layer.

    Needs the extra `metrics`.

    Args:
        weights: File that `scripts/train_emoji_features.py` has written; it says which variant it is.

    Raises:
        DataError: The file cannot be read, or holds other weights.
    """

    def __init__(self, weights: str | Path) -> None:
        from safetensors import SafetensorError, safe_open

        path = Path(weights).expanduser()
        try:
            content = path.read_bytes()
            with safe_open(path, "pt") as file:
                variant = (file.metadata() or {})["variant"]
                names = file.keys()
                tensors = {name: file.get_tensor(name) for name in names}
            net = Classifier(variant, len(tensors["last.bias"]))
            net.load_state_dict(tensors)
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            raise DataError(
                f"features.Emoji cannot load {path} ({error}): make it with scripts/train_emoji_features.py"
            ) from error
        self._net = net.eval().requires_grad_(False)
        self._fingerprint = f"emoji {variant} {hashlib.sha256(content).hexdigest()}"

    def __call__(self, images: Tensor) -> Tensor:
        """Return features (N, 64) of colour images (N, 3, h, w) in [-1, 1]."""
        with torch.no_grad():
            net = self._net.to(images.device)
            features: Tensor = net.features(F.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True))
        return features

    def fingerprint(self) -> str:
        """Return the variant and the SHA-256 of the weights."""
        return self._fingerprint


@hookimpl
def components() -> list[Component]:
    """Return the features, which configs name `features.Emoji`."""
    return [Component("features", "Emoji", Emoji)]
