"""Draw the digits bundled with `datasets.MNIST`: the first 1,000 of each class, in original order.

    python scripts/draw_mnist_subset.py FOLDER [OUT]

FOLDER holds the full training files, gzipped or not; OUT is plugins/datasets/mnist unless given. Nothing is random and
no time is stored, so the files are the same each time.
"""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import numpy as np

from pggan_plugins.datasets.mnist import IMAGES_MAGIC, LABELS_MAGIC, read_split

PER_CLASS = 1000
"""Number of digits of each class."""

OUT = Path(__file__).parents[1] / "plugins" / "datasets" / "mnist"


def write_idx(path: Path, magic: int, values: np.ndarray) -> None:
    """Write uint8 values as a gzipped IDX file."""
    header = struct.pack(f">{1 + values.ndim}I", magic, *values.shape)
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        file.write(header + values.tobytes())


def main(folder: Path, out: Path = OUT) -> None:
    """Read the training split of `folder` and write its subset to `out`."""
    images, labels = read_split(folder, "train")
    rows_of_classes = [np.flatnonzero(labels == digit)[:PER_CLASS] for digit in range(10)]
    chosen = np.sort(np.concatenate(rows_of_classes))
    if len(chosen) != 10 * PER_CLASS:
        sys.exit(f"{folder} has fewer than {PER_CLASS} digits of some class: give the full training files")
    out.mkdir(parents=True, exist_ok=True)
    write_idx(out / "train-images-idx3-ubyte.gz", IMAGES_MAGIC, images[chosen])
    write_idx(out / "train-labels-idx1-ubyte.gz", LABELS_MAGIC, labels[chosen])


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
