"""Data sets: full-size images (H, W, C). The core resizes and caches them (`pggan_kit.data`)."""

from __future__ import annotations

from pggan_kit import Component, hookimpl

from .array_folder import ArrayFolder
from .arrays import Arrays
from .csv_file import CSV
from .dicom import DICOM
from .hdf5 import HDF5
from .hugging_face import HuggingFace
from .image_folder import ImageFolder
from .lmdb_database import LMDB
from .mnist import MNIST
from .stacked_mnist import StackedMNIST
from .torch_dataset import Torch
from .web_dataset import WebDataset

__all__ = [
    "CSV",
    "DICOM",
    "HDF5",
    "LMDB",
    "MNIST",
    "ArrayFolder",
    "Arrays",
    "HuggingFace",
    "ImageFolder",
    "StackedMNIST",
    "Torch",
    "WebDataset",
]


@hookimpl
def components() -> list[Component]:
    """Return the data sets of this package, which configs name `datasets.<name>`."""
    datasets = (
        MNIST,
        StackedMNIST,
        ImageFolder,
        CSV,
        LMDB,
        WebDataset,
        DICOM,
        ArrayFolder,
        Arrays,
        HDF5,
        Torch,
        HuggingFace,
    )
    return [Component("datasets", cls.__name__, cls) for cls in datasets]
