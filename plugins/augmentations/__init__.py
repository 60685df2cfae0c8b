"""Random changes to the images that the discriminator sees, against overfitting of small data sets."""

from pggan_kit import Component, hookimpl
from pggan_plugins.augmentations.ada import ADA
from pggan_plugins.augmentations.diff_augment import DiffAugment

__all__ = ["ADA", "DiffAugment"]


@hookimpl
def components() -> list[Component]:
    """Return the augmentations of this folder."""
    return [Component("augmentations", cls.__name__, cls) for cls in (DiffAugment, ADA)]
