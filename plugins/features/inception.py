"""The features that FID, KID, precision and recall are usually given in."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pggan_kit import DataError, images_to_uint8

MODULE = "torch_fidelity.feature_extractor_inceptionv3"


class Inception:
    """What InceptionV3, trained on ImageNet, computes in its last pooling layer: 2,048 features.

    By torch-fidelity, whose weights and resizing to 299x299 are those of the original FID (Heusel et al. 2017). Needs
    the extra `fidelity`.

    Args:
        weights: torch-fidelity's file of weights (`weights-inception-2015-12-05-6726825d.pth`). None: it is downloaded
            once, into torch's hub folder.

    Raises:
        DataError: torch-fidelity is missing, or the weights cannot be had or do not fit.
    """

    def __init__(self, weights: str | None = None) -> None:
        self._fingerprint = "inception 2015-12-05 6726825d"
        path = None
        if weights is not None:
            path = Path(weights).expanduser()
            self._fingerprint = f"inception {_checked(path)}"
        try:
            make = importlib.import_module(MODULE).FeatureExtractorInceptionV3
        except ImportError as error:
            raise DataError(
                f"features.Inception needs torch-fidelity ({error}): pip install 'pggan_kit[fidelity]'"
            ) from error
        try:
            self._net: Any = make("inception-v3-compat", ["2048"], None if path is None else str(path))
        except Exception as error:  # no network, or weights of another network
            raise DataError(
                f"features.Inception cannot have its weights: {error}. Name a file with `weights`"
            ) from error

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, h, w) in [-1, 1] -> (N, 2048). Gray is taken as colour."""
        colour = images.expand(-1, 3, -1, -1)
        bytes_ = images_to_uint8(colour)
        with torch.no_grad():
            (features,) = self._net.to(images.device)(bytes_)
        found: Tensor = features
        return found

    def fingerprint(self) -> str:
        """The SHA-256 of the file of weights, or the name of those that are downloaded."""
        return self._fingerprint


def _checked(path: Path) -> str:
    """The SHA-256 of a file of weights that holds data and no code, though torch-fidelity would run what it holds.

    Raises:
        DataError: it cannot be read as such.
    """
    try:
        torch.load(path, map_location="cpu", weights_only=True)
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except Exception as error:  # torch.load documents none of what it raises
        raise DataError(f"features.Inception.weights: {path} cannot be read as a file of weights ({error})") from error
