"""Pictures for people: tensors as bytes, grids of images, and GIFs that grow by a frame at a time."""

from pggan_kit.pictures.frames import Caption, cell_size, draw_frame
from pggan_kit.pictures.gif import Frame, assemble, disassemble, encode
from pggan_kit.pictures.grid import BACKGROUND, GAP, image_grid, tile, to_uint8, untiled

__all__ = [
    "BACKGROUND",
    "GAP",
    "Caption",
    "Frame",
    "assemble",
    "cell_size",
    "disassemble",
    "draw_frame",
    "encode",
    "image_grid",
    "tile",
    "to_uint8",
    "untiled",
]
