"""Data sets: full-size images (H, W, C). The core resizes and caches them (`pggan_kit.data`)."""

from __future__ import annotations

from pggan_kit import Component, hookimpl

from .array_folder import ArrayFolder
from .arrays import Arrays
from .hugging_face import HuggingFace
from .image_folder import ImageFolder
from .mnist import MNIST
from .stacked_mnist import StackedMNIST
from .torch_dataset import Torch

__all__ = ["MNIST", "ArrayFolder", "Arrays", "HuggingFace", "ImageFolder", "StackedMNIST", "Torch"]


@hookimpl
def components() -> list[Component]:
    """Return the data sets of this package, which configs name `datasets.<name>`."""
    datasets = (MNIST, StackedMNIST, ImageFolder, ArrayFolder, Arrays, Torch, HuggingFace)
    return [Component("datasets", cls.__name__, cls) for cls in datasets]
