"""Pictures: files listed, opened and read in one way, tensors as bytes, grids of images, and GIFs by the frame."""

from pggan_kit.pictures.array_reading import ARRAY_SUFFIXES, LAYOUTS, arrange_image, choose_layout, read_array
from pggan_kit.pictures.channels import PictureSettings, draw_channels
from pggan_kit.pictures.decoding import FORMATS, MAX_PIXELS, PILLOW_LIMIT, open_picture
from pggan_kit.pictures.frames import Caption, choose_cell_size, draw_frame
from pggan_kit.pictures.gif import Frame, assemble_gif, disassemble_gif, encode_frame
from pggan_kit.pictures.grid import BACKGROUND, GAP, arrange_grid, crop_grid, image_grid, split_sheet, tile, to_uint8
from pggan_kit.pictures.reading import GRAY_MODES, SUFFIXES, PictureReader, list_pictures, turn_upright

__all__ = [
    "ARRAY_SUFFIXES",
    "BACKGROUND",
    "FORMATS",
    "GAP",
    "GRAY_MODES",
    "LAYOUTS",
    "MAX_PIXELS",
    "PILLOW_LIMIT",
    "SUFFIXES",
    "Caption",
    "Frame",
    "PictureReader",
    "PictureSettings",
    "arrange_grid",
    "arrange_image",
    "assemble_gif",
    "choose_cell_size",
    "choose_layout",
    "crop_grid",
    "disassemble_gif",
    "draw_channels",
    "draw_frame",
    "encode_frame",
    "image_grid",
    "list_pictures",
    "open_picture",
    "read_array",
    "split_sheet",
    "tile",
    "to_uint8",
    "turn_upright",
]
