"""Draw images: grids, frames with captions, and GIFs."""
