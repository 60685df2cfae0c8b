"""Labels of pictures in the file `dataset.json`, as StyleGAN's tools write it."""

from __future__ import annotations

import json
import posixpath

from pggan_kit import DataError

NAME = "dataset.json"
SHAPE = '{"labels": [["00000/a.png", 6], ...]}'
"""What the file holds: a class number for each picture, by its path."""

LONGEST = 80
"""Maximum length of a wrong entry that a message shows."""


def parse_labels(content: bytes, place: str) -> dict[str, int]:
    """Return the class number of each path.

    Args:
        content: Content of the file.
        place: Path of the file, for messages.

    Raises:
        DataError: The file has another content, or labels that are not class numbers.
    """
    try:
        parsed = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} cannot be read as JSON ({error}): it must hold {SHAPE}") from error
    if not isinstance(parsed, dict) or "labels" not in parsed:
        raise DataError(f"{place} has no 'labels': it must hold {SHAPE}, or set labels = False")
    entries = parsed["labels"]
    if entries is None:
        raise DataError(f"{place} says that there are no labels ('labels' is null): set labels = False")
    if not isinstance(entries, list):
        raise DataError(f"{place}: 'labels' must be a list of pairs of a path and a class number, as in {SHAPE}")

    # A file may be named twice, with the same label.
    label_of: dict[str, int] = {}
    for number, entry in enumerate(entries):
        file, label = _parse_entry(entry, f"{place}, entry {number}")
        if label_of.setdefault(file, label) != label:
            raise DataError(f"{place} gives {file} the labels {label_of[file]} and {label}: leave one of them")
    return label_of


def _parse_entry(entry: object, place: str) -> tuple[str, int]:
    """Return the path and the class number of an entry."""
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
        raise DataError(f"{place}, must be a pair of a path and a class number, as in {SHAPE}, not {_shorten(entry)}")
    file, label = entry
    if isinstance(label, list):
        raise DataError(
            f"{place}, gives {file} the vector {_shorten(label)}, and labels must be class numbers: replace vectors by "
            "numbers, or set labels = False"
        )
    if not isinstance(label, int) or isinstance(label, bool) or label < 0:
        raise DataError(f"{place}, gives {file} the label {_shorten(label)}: it must be a whole number from 0 up")
    # Windows' tools write backslashes, and others begin with ./.
    return posixpath.normpath(file.replace("\\", "/")), label


def _shorten(value: object) -> str:
    text = repr(value)
    if len(text) > LONGEST:
        return f"{text[:LONGEST]}..."
    return text
