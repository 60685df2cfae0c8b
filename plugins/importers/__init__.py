"""Importers: readers of trained networks that other projects have saved."""

from pggan_kit import Importer, hookimpl
from pggan_plugins.importers.pytorch_gan_zoo import PyTorchGANZoo

__all__ = ["PyTorchGANZoo"]


@hookimpl
def importers() -> list[Importer]:
    """Return the importers of this folder."""
    return [PyTorchGANZoo()]
