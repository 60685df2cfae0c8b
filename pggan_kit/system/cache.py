"""The folder of files that only save time, and of the list of plugin files that are trusted."""

from __future__ import annotations

import os
from pathlib import Path

from pggan_kit.errors import DataError


def cache_folder(chosen: str | Path | None = None) -> Path:
    """Return the cache folder: `chosen` (`data.cache`), or else `$PGGAN_KIT_CACHE`, or else `~/.cache/pggan_kit`.

    Raises:
        DataError: The folder is in a home folder that is not known.
    """
    folder = chosen or os.environ.get("PGGAN_KIT_CACHE") or "~/.cache/pggan_kit"
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:
        raise DataError(f"no home folder for {folder}: name a folder with data.cache or $PGGAN_KIT_CACHE") from error
