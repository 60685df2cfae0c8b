"""The files under experiments/, and small data for those that name data of a user's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.hugging_face import Rows, install_library
from helpers.paths import ROOT
from PIL import Image

from pggan_kit.config import gin_files as configs

EXPERIMENTS = ROOT / "experiments"
FILES = sorted(
    path
    for path in EXPERIMENTS.rglob("*.gin")
    if not {"base", "base.gin", "ablations", "sweeps"} & set(path.relative_to(EXPERIMENTS).parts)
)


def name_file(path: Path) -> str:
    """Return the name of an experiment's file within the folder of all: `table1/a.gin`."""
    return path.relative_to(EXPERIMENTS).as_posix()


def list_plugins(path: Path) -> list[str]:
    """Return the plugin that lies beside a file, as its first lines say."""
    plugin = path.with_suffix(".py")
    return [str(plugin)] if plugin.exists() else []


def make_pictures(folder: Path) -> Path:
    """Return a new folder within another, with six small pictures."""
    pictures = folder / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for index in range(6):
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(pictures / f"{index}.png")
    return pictures


def make_data(path: Path, folder: Path, pictures: Path, patch: pytest.MonkeyPatch) -> list[str]:
    """Make the data that a file asks for, and return the bindings that name them.

    Args:
        path: The experiment's file.
        folder: The folder in which they are made.
        pictures: A folder with pictures.
        patch: The patch that stands in for a library.
    """
    # Pictures, or digits in one file.
    macros = {binding.name for binding in configs.read_config(path).bindings}
    bindings = []
    if "FOLDER" in macros and not {"SLICES", "TILES"} & macros:
        bindings.append(f"FOLDER = {str(pictures)!r}")
    if "FILE" in macros:
        file = folder / "digits.npy"
        np.save(file, np.random.default_rng(0).integers(0, 255, (40, 28, 28, 1), dtype=np.uint8))
        bindings.append(f"FILE = {str(file)!r}")

    # Numbers instead of pictures.
    noise = np.random.default_rng(0).random((12, 2, 32, 64), np.float32)
    if "TONES" in macros:
        np.save(folder / "tones.npy", noise)
        bindings.append(f"TONES = {str(folder / 'tones.npy')!r}")
    if "FIELDS" in macros:
        np.save(folder / "fields.npy", noise[:, 0, :, :32].repeat(2, axis=1).repeat(2, axis=2))
        bindings += [f"FIELDS = {str(folder / 'fields.npy')!r}", "evaluation.count = 4"]
    for name in sorted({"SLICES", "TILES"} & macros):
        slices = folder / name
        slices.mkdir()
        channels = 5 if name == "TILES" else 1
        for number in range(6):
            np.save(slices / f"{number}.npy", (2000 * noise[number, :1].repeat(channels, axis=0)).astype(np.int16))
        bindings.append(f"{name} = {str(slices)!r}")

    # A data set of a library.
    if "DATA_SET" in macros:
        pngs = [picture.read_bytes() for picture in sorted(pictures.iterdir())]
        rows = Rows([{"bytes": png} for png in pngs], list(range(len(pngs))))
        install_library(patch, {"digits": rows})
    return bindings
