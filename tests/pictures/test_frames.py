"""Frames of animations: their sizes, and the colours of their palettes."""

from __future__ import annotations

import numpy as np
import pytest

from pggan_kit.pictures.frames import Caption, draw_frame, index_colours


def test_frames_of_reduced_images_have_the_size_of_the_others() -> None:
    """Five channels side by side whose kept height, 26, is a rounded 25.6."""
    caption = Caption("", "", 1, 1, 1)
    sizes = {
        draw_frame(np.zeros((4, *shape, 1), np.uint8), 4, (16, 80), caption).size for shape in ((16, 80), (26, 128))
    }
    assert len(sizes) == 1


@pytest.mark.parametrize("width", [28, 45, 48, 64, 96, 105])
def test_a_palette_has_the_colours_of_all_columns(width: int) -> None:
    """Two columns of each image have a colour that no other has."""
    images = np.full((16, width, width, 3), 128, np.uint8)
    images[:, :, 1] = (255, 0, 0)
    images[:, :, width // 3] = (0, 0, 255)
    palette, indices = index_colours(images)
    shown = np.frombuffer(palette, np.uint8).reshape(256, 3)[indices[..., 0]]
    assert np.abs(shown.astype(int) - images).max() <= 4
