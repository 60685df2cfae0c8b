"""Pictures: files listed, opened and read in one way, tensors as bytes, grids of images, and GIFs by the frame."""

from pggan_kit.pictures.decoding import FORMATS, MAX_PIXELS, PILLOW_LIMIT, open_picture
from pggan_kit.pictures.frames import Caption, choose_cell_size, draw_frame
from pggan_kit.pictures.gif import Frame, assemble_gif, disassemble_gif, encode_frame
from pggan_kit.pictures.grid import BACKGROUND, GAP, arrange_grid, crop_grid, image_grid, split_sheet, tile, to_uint8
from pggan_kit.pictures.reading import GRAY_MODES, SUFFIXES, PictureReader, list_pictures

__all__ = [
    "BACKGROUND",
    "FORMATS",
    "GAP",
    "GRAY_MODES",
    "MAX_PIXELS",
    "PILLOW_LIMIT",
    "SUFFIXES",
    "Caption",
    "Frame",
    "PictureReader",
    "arrange_grid",
    "assemble_gif",
    "choose_cell_size",
    "crop_grid",
    "disassemble_gif",
    "draw_frame",
    "encode_frame",
    "image_grid",
    "list_pictures",
    "open_picture",
    "split_sheet",
    "tile",
    "to_uint8",
]
