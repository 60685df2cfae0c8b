"""Import libraries that only one data set needs."""

from __future__ import annotations

import importlib
from typing import Any

from pggan_kit import DataError


def import_extra(user: str, library: str, extra: str) -> Any:
    """Import a library where it is used.

    Args:
        user: What needs it, for messages.
        library: Name of the library.
        extra: Extra of this package that installs it.

    Raises:
        DataError: It is not installed.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise DataError(f"{user} needs the library `{library}` ({error}): pip install 'pggan_kit[{extra}]'") from error
