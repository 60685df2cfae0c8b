"""The features that the Fréchet distance of recent work is computed from, beside those of Inception."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pggan_kit import DataError, SettingError, check_at_least, hash_files

from .colour_channels import repeat_gray
from .vision_transformer import HEAD_WIDTH, VisionTransformer

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Means and standard deviations of ImageNet's channels, of pixels in [0, 1]."""

UNUSED = "mask_token"
"""Weight that only training uses."""

WANTED = "name a file of DINOv2 without registers, small, base or large, as timm publishes it (model.safetensors)"
"""What to do where a file does not fit."""


class DINOv2:
    """The class token of DINOv2 (Oquab et al. 2023), in float32: 384 features of ViT-S/14, 768 of B, 1,024 of L.

    Stein et al. 2023 find that distances in the features of ViT-L/14 agree better with people than Inception's do.
    Images are resized to 224x224 (bicubic, with antialiasing) and normalised as ImageNet; gray is repeated in all three
    channels. Position embeddings are resized as in DINOv2's own code. Needs the extra `metrics`.

    The file of weights is named by its path; nothing is downloaded, and only safetensors are read, which hold data and
    no code: `model.safetensors` of `timm/vit_large_patch14_dinov2.lvd142m` and its siblings, or DINOv2's own weights
    saved as safetensors.

    Args:
        weights: The file of weights.
        size: The side that images are resized to, a multiple of the patches' 14 pixels.

    Raises:
        ValueError: An argument out of range.
        DataError: A missing library `safetensors`, or a file that cannot be read or does not fit.
    """

    def __init__(self, weights: str | Path, size: int = 224) -> None:
        check_at_least("size", size, 1, whole=True)
        path = Path(weights).expanduser()
        self._net = build_network(_load_weights(path), path)

        patch = self._net.patch
        if size % patch:
            raise SettingError("size", f"must be a multiple of {patch}, the pixels of a patch's side, and is {size}")
        self.size = size
        (content,) = hash_files(path.parent, [path.name])
        self._fingerprint = f"dinov2 {content} {size}"

    def __call__(self, images: Tensor) -> Tensor:
        """Return features (N, F) of images (N, C, h, w) in [-1, 1].

        Raises:
            DataError: Images of neither 1 nor 3 channels.
        """
        colour = repeat_gray(images.float(), "DINOv2")
        resized = F.interpolate(colour, (self.size, self.size), mode="bicubic", antialias=True)
        mean, std = (resized.new_tensor(values)[:, None, None] for values in (MEAN, STD))
        with torch.no_grad():
            features: Tensor = self._net.to(images.device)(((resized + 1) / 2 - mean) / std)
        return features

    def fingerprint(self) -> str:
        """Return the SHA-256 of the file of weights, and the size."""
        return self._fingerprint


def _load_weights(path: Path) -> dict[str, Tensor]:
    """Load weights by name, in float32.

    Raises:
        DataError: A missing library `safetensors`, or a file that cannot be read.
    """
    try:
        load_file = importlib.import_module("safetensors.torch").load_file
    except ImportError as error:
        raise DataError(
            f"features.DINOv2 needs the library `safetensors` ({error}): pip install 'pggan_kit[metrics]'"
        ) from error
    if not path.is_file():
        raise DataError(f"features.DINOv2.weights: no file {path}: {WANTED}")
    try:
        weights = load_file(path)
    except Exception as error:  # the library raises errors of its own
        raise DataError(f"features.DINOv2.weights: {path} cannot be read as safetensors ({error}): {WANTED}") from error
    return {name: value.float() for name, value in weights.items() if name != UNUSED}


def build_network(weights: Mapping[str, Tensor], path: Path) -> VisionTransformer:
    """Build the network that weights belong to, in inference mode.

    Args:
        weights: Weights by name, from whose shapes width, depth and patches follow.
        path: Their file, for messages.

    Raises:
        DataError: Weights of another network.
    """
    numbers = [int(match[1]) for match in (re.match(r"blocks\.(\d+)\.", name) for name in weights) if match]
    try:
        width, _, patch, _ = weights["patch_embed.proj.weight"].shape
        hidden, _ = weights["blocks.0.mlp.fc1.weight"].shape
        _, places, _ = weights["pos_embed"].shape
    except (KeyError, ValueError) as error:
        raise DataError(
            f"features.DINOv2.weights: {path} holds no such network ({type(error).__name__}: {error}): {WANTED}"
        ) from error

    # Without memory for weights of its own, which are replaced at once.
    with torch.device("meta"):
        net = VisionTransformer(width, max(numbers) + 1, hidden, patch, math.isqrt(places - 1))
    try:
        if width % HEAD_WIDTH:
            raise ValueError(f"its width {width} is no multiple of {HEAD_WIDTH}")
        net.load_state_dict(weights, assign=True)
    except (RuntimeError, ValueError) as error:
        complaint = " ".join(str(error).split())[:300]
        raise DataError(f"features.DINOv2.weights: {path} holds another network ({complaint}): {WANTED}") from error
    return net.eval().requires_grad_(False)
