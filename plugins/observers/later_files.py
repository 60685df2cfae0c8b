"""Files that are named by the clock, of which a run that is resumed writes the later ones again."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"(\d{9,})-[1-9]\d*x[1-9]\d*\.(png|json)", re.ASCII)
"""Names as `000012800-14x14.png`: the clock, and a stage's size."""


def remove_later_files(folder: Path, images: int) -> None:
    """Remove files whose names say that they were written after a place on the clock; all others stay.

    Args:
        folder: Folder of an observer, in which users may have put files of their own.
        images: The place: the clock of the checkpoint from which a run trains again.
    """
    for file in folder.iterdir():
        name = _NAME.fullmatch(file.name)
        if name is not None and int(name[1]) > images and file.is_file():
            file.unlink()
