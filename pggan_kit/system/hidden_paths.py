"""Hide the folders of this machine in what others will read."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

NAMES = r"""(?:[\\/]+[^\\/\s'"(),;:]+)"""
"""Names after one another in a path, up to a space or another mark."""

PATH = re.compile(rf"""(?<![\w.~/\\])(?:~|[A-Za-z]:)?{NAMES}+""")
"""An absolute path, or one from the home folder, of POSIX or of Windows."""

QUOTED_PATH = re.compile(r"""(['"])(?:~|[A-Za-z]:)?[\\/][^'"\n]*\1""")
"""The same within quotes, where a path may hold spaces."""


def hide_paths(text: str, *known: str) -> str:
    """Return a text in which the last name alone is left of each absolute path, as `.../mnist.gin`.

    Args:
        text: A text.
        known: Absolute paths that may stand in the text and hold spaces, at which other paths end.
    """
    for path in sorted(known, key=len, reverse=True):
        text = re.sub(f"{re.escape(path)}{NAMES}*", lambda match: f".../{_take_last(match[0])}", text)
    text = QUOTED_PATH.sub(lambda match: f"{match[1]}.../{_take_last(match[0][1:-1])}{match[1]}", text)
    return PATH.sub(lambda match: ".../" + _take_last(match[0]), text)


def hide_folders(value: Any) -> Any:
    """Return a value in which the last part alone is left of each text that is an absolute path.

    Args:
        value: A value of a setting: lists, tuples and dicts are looked through.
    """
    if isinstance(value, str):
        is_path = PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute() or value.startswith("~")
        return f".../{_take_last(value)}" if is_path else value
    if isinstance(value, (list, tuple)):
        return type(value)(hide_folders(item) for item in value)
    if isinstance(value, dict):
        return {key: hide_folders(item) for key, item in value.items()}
    return value


def _take_last(path: str) -> str:
    """Return the last name in a path of POSIX or of Windows."""
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]
