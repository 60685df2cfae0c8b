"""Pictures: files opened with care, tensors as bytes, grids of images, and GIFs that grow by a frame at a time."""

from pggan_kit.pictures.decoding import FORMATS, MAX_PIXELS, PILLOW_LIMIT, open_picture
from pggan_kit.pictures.frames import Caption, choose_cell_size, draw_frame
from pggan_kit.pictures.gif import Frame, assemble_gif, disassemble_gif, encode_frame
from pggan_kit.pictures.grid import BACKGROUND, GAP, image_grid, split_sheet, tile, to_uint8

__all__ = [
    "BACKGROUND",
    "FORMATS",
    "GAP",
    "MAX_PIXELS",
    "PILLOW_LIMIT",
    "Caption",
    "Frame",
    "assemble_gif",
    "choose_cell_size",
    "disassemble_gif",
    "draw_frame",
    "encode_frame",
    "image_grid",
    "open_picture",
    "split_sheet",
    "tile",
    "to_uint8",
]
