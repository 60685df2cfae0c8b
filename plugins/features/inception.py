"""The features that FID, KID, precision and recall are usually computed from."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pggan_kit import DataError, images_to_uint8

from .colour_channels import repeat_gray

MODULE = "torch_fidelity.feature_extractor_inceptionv3"


class Inception:
    """The last pooling layer of InceptionV3, trained on ImageNet: 2,048 features.

    By torch-fidelity, whose weights and resizing to 299x299 are those of the original FID (Heusel et al. 2017). Needs
    the extra `fidelity`.

    Args:
        weights: The file of weights of torch-fidelity (`weights-inception-2015-12-05-6726825d.pth`). None: it is
            downloaded once, into torch's hub folder.

    Raises:
        DataError: A missing torch-fidelity, or weights that cannot be downloaded or do not fit.
    """

    def __init__(self, weights: str | Path | None = None) -> None:
        self._fingerprint = "inception 2015-12-05 6726825d"
        file = None
        if weights is not None:
            path = Path(weights).expanduser()
            self._fingerprint = f"inception {_hash_weights(path)}"
            file = str(path)

        # The library, and then its weights, which it downloads if none are named.
        try:
            make = importlib.import_module(MODULE).FeatureExtractorInceptionV3
        except ImportError as error:
            raise DataError(
                f"features.Inception needs torch-fidelity ({error}): pip install 'pggan_kit[fidelity]'"
            ) from error
        try:
            self._net: Any = make("inception-v3-compat", ["2048"], file)
        except Exception as error:  # no network, or weights of another network
            raise DataError(
                f"features.Inception cannot load its weights: {error}. Name a file with `weights`"
            ) from error

    def __call__(self, images: Tensor) -> Tensor:
        """Return features (N, 2048) of images (N, C, h, w) in [-1, 1]. Gray is repeated in all three channels.

        Raises:
            DataError: Images of neither 1 nor 3 channels.
        """
        colour = repeat_gray(images, "Inception")
        pixels = images_to_uint8(colour)
        with torch.no_grad():
            outputs: tuple[Tensor] = self._net.to(images.device)(pixels)
        return outputs[0]

    def fingerprint(self) -> str:
        """Return the SHA-256 of the file of weights, or the name of the weights that are downloaded."""
        return self._fingerprint


def _hash_weights(path: Path) -> str:
    """Return the SHA-256 of a file of weights, after checking that it holds data and no code.

    torch-fidelity would run what the file holds.

    Raises:
        DataError: A file that cannot be read as weights.
    """
    try:
        torch.load(path, map_location="cpu", weights_only=True)
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except Exception as error:  # torch.load documents none of what it raises
        raise DataError(f"features.Inception.weights: {path} cannot be read as a file of weights ({error})") from error
