"""What features of photographs do with images that are none."""

from __future__ import annotations

from torch import Tensor

from pggan_kit import DataError

COLOURS = 3


def require_photographs(images: Tensor, name: str) -> None:
    """Check that images (N, C, h, w) are gray or coloured.

    Args:
        images: The images.
        name: Name of the features in errors.

    Raises:
        DataError: They have another number of channels.
    """
    channels = images.shape[1]
    if channels not in (1, COLOURS):
        raise DataError(
            f"features.{name} knows photographs of 1 or 3 channels, and the images have {channels}: bring features of "
            "your own (`pggan-kit plugins new features NAME`), or measure by metrics without features, such as "
            "SlicedWasserstein, RadialSpectrum and MSSSIM"
        )


def repeat_gray(images: Tensor, name: str) -> Tensor:
    """Return images (N, 1 or 3, h, w) in three channels; gray is repeated.

    Args:
        images: The images.
        name: Name of the features in errors.

    Raises:
        DataError: They have another number of channels.
    """
    require_photographs(images, name)
    return images.expand(-1, COLOURS, -1, -1)
