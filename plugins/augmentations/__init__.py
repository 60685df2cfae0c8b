"""What the discriminator is shown instead of the images themselves: for data sets that it would learn by heart."""

from pggan_kit import Component, hookimpl
from pggan_plugins.augmentations.ada import ADA
from pggan_plugins.augmentations.diff_augment import DiffAugment

__all__ = ["ADA", "DiffAugment"]


@hookimpl
def components() -> list[Component]:
    """The augmentations of this folder."""
    return [Component("augmentations", cls.__name__, cls) for cls in (DiffAugment, ADA)]
