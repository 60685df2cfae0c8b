"""Say in words what a data set holds: its images, what was left out, and the names of its classes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from pggan_kit.components import Dataset
from pggan_kit.data.image_kinds import name_image
from pggan_kit.errors import DataError, PluginError
from pggan_kit.schedule import Stage

CLASS_LIMIT = 1_000_000
"""Maximum number of classes: where there are more, labels are numbers of something else, such as dates."""

SHOWN_NAMES = 5
"""Maximum number of class names in a message."""


def get_left_out(dataset: Dataset) -> dict[str, int]:
    """Return the number of entries that a data set did not read, by kind; none where it does not say."""
    return {kind: int(count) for kind, count in getattr(dataset, "left_out", {}).items()}


def get_class_names(dataset: Dataset) -> list[str]:
    """Return the names of a data set's classes by their numbers; none where it has no names.

    Raises:
        PluginError: There are names, and not one for each class.
    """
    names = list(getattr(dataset, "class_names", []))
    if names and len(names) != dataset.classes:
        kind = type(dataset).__name__
        raise PluginError(f"{kind}.class_names has {len(names)} names for {dataset.classes} classes: give one for each")
    return [str(name) for name in names]


def check_classes(dataset: Dataset) -> None:
    """Check that a data set has no more classes than can be counted.

    Raises:
        DataError: It has.
    """
    if dataset.classes > CLASS_LIMIT:
        largest = max(range(len(dataset)), key=dataset.label)
        raise DataError(
            f"the data set has {dataset.classes:,} classes, and may have {CLASS_LIMIT:,}: its largest label is "
            f"{dataset.label(largest)}, of {name_image(dataset, largest)}. Labels are class numbers from 0 up: number "
            "the classes, or leave labels out"
        )


def number_classes(dataset: Dataset, training: Dataset) -> list[int]:
    """Return the training data's number of each class of an evaluation's data: by its name where both have names.

    Where one of both has names, these are numbers (sub-folders `0` to `9`); else classes are matched by their places,
    with a warning.

    Args:
        dataset: Data set of the evaluation.
        training: Training data, with labels.

    Raises:
        DataError: There are no labels, there is a class that the training data lack, or nothing tells which class is
            which.
    """
    if not dataset.classes:
        raise DataError(
            "evaluation.dataset has no labels, and the generator draws images of classes: give it the labels of the "
            "training data's classes"
        )

    names = get_class_names(dataset)
    training_names = get_class_names(training)
    if not names and not training_names and dataset.classes > training.classes:
        raise DataError(
            f"evaluation.dataset has {dataset.classes} classes, and the training data {training.classes}: leave out "
            "the images of others"
        )
    if not names and not training_names:
        return list(range(dataset.classes))

    # Sub-folders are often called by the class numbers that an array holds. An empty one has no place among them.
    if names and not training_names and _are_numbers(names, training.classes):
        return [int(name) for name in names]
    if training_names and not names and _are_numbers(training_names):
        matched = _match_numbers(dataset, [int(name) for name in training_names])
        if matched:
            return matched
    if not names or not training_names:
        _warn_of_places(dataset, training)
        return list(range(dataset.classes))

    number_of = {name: number for number, name in enumerate(training_names)}
    for name in names:
        if name not in number_of:
            raise _make_error_of_missing(name)
    return [number_of[name] for name in names]


def _match_numbers(dataset: Dataset, training_numbers: Sequence[int]) -> list[int]:
    """Return the training data's number of each class of data without names, where its names are numbers.

    Args:
        dataset: Data set of the evaluation, without names.
        training_numbers: Names of the training data's classes, which are different numbers.

    Returns:
        The numbers; 0 for a class without images. Nothing where numbers from 0 stand beside names from 1, so that they
        are places.

    Raises:
        DataError: There is a class that the training data lack.
    """
    # Labels that begin at 1 leave class 0 without images.
    used = {int(dataset.label(i)) for i in range(len(dataset))}
    number_of = {name: number for number, name in enumerate(training_numbers)}
    if 0 in used and 0 not in number_of:
        return []
    for number in sorted(used):
        if number not in number_of:
            raise _make_error_of_missing(str(number))
    return [number_of.get(number, 0) for number in range(dataset.classes)]


def _make_error_of_missing(name: str) -> DataError:
    return DataError(
        f"evaluation.dataset has a class {name!r}, which the training data lack: rename it, or leave its images out"
    )


def _are_numbers(names: Sequence[str], classes: float = math.inf) -> bool:
    """Return whether the names of classes are different numbers below a number of classes."""
    if not all(name.isascii() and name.isdigit() for name in names):
        return False
    numbers = {int(name) for name in names}
    return len(numbers) == len(names) and max(numbers) < classes


def _warn_of_places(dataset: Dataset, training: Dataset) -> None:
    """Warn that classes are matched by their places, where only one of two data sets has names for them.

    Raises:
        DataError: They have different numbers of classes.
    """
    named = "evaluation.dataset"
    other = "the training data"
    names = get_class_names(dataset)
    if not names:
        named, other = other, named
        names = get_class_names(training)
    listed = ", ".join(names[:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")
    advice = f"give {other} the same names, or call the classes of {named} by their numbers from 0"
    if dataset.classes != training.classes:
        raise DataError(
            f"evaluation.dataset has {dataset.classes} classes, and the training data {training.classes}, and "
            f"{named} alone gives them names ({listed}), so that nothing tells which is which: {advice}"
        )
    warnings.warn(
        f"classes are matched by their places, since {named} alone gives them names ({listed}): {advice}",
        stacklevel=3,
    )


def check_stages(dataset: Dataset | None, stages: Sequence[Stage]) -> None:
    """Let a data set check the stages; one that does not care, or none, takes all.

    Raises:
        DataError: Its images do not suit them.
    """
    check = getattr(dataset, "check_stages", None)
    if check is not None:
        check(stages)


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """Return what was not read as the end of a sentence, `90 of other kinds (.HEIC) were not read`."""
    total = sum(left_out.values())
    kinds = ", ".join(left_out)
    if len(left_out) > 1:
        kinds = ", ".join(f"{kind} {count}" for kind, count in left_out.items())
    verb = "was" if total == 1 else "were"
    return f"{total:,} of other kinds ({kinds}) {verb} not read"


def describe_contents(dataset: Dataset, skipped: int = 0) -> str:
    """Return the number of images and of everything that is left out, `10 images; 90 of other kinds (.HEIC) ...`.

    Args:
        dataset: Data set.
        skipped: Number of its images that could not be read, as far as is known.
    """
    parts = [f"{len(dataset) - skipped:,} images"]
    if skipped:
        parts.append(f"{skipped:,} could not be read")
    left_out = get_left_out(dataset)
    if left_out:
        parts.append(describe_left_out(left_out))
    return "; ".join(parts)


def list_content_warnings(dataset: Dataset, skipped: int = 0) -> list[str]:
    """Return a sentence about what is left out; none where everything was read. See `describe_contents`."""
    if not skipped and not get_left_out(dataset):
        return []
    return [f"the data set has {describe_contents(dataset, skipped)}"]


def list_empty_classes(names: Sequence[str], classes: int, labels: np.ndarray | None) -> list[str]:
    """Return a sentence about classes without one image, which a generator draws all the same; none without such.

    Args:
        names: Names of the classes; none without names.
        classes: Number of classes.
        labels: Labels of all images, int64; None where there are none.
    """
    if not classes or labels is None:
        return []
    empty = np.flatnonzero(np.bincount(labels, minlength=classes) == 0).tolist()
    if not empty:
        return []
    advice = "a conditional generator draws such a class all the same: number the classes from 0 without gaps"
    if empty == [0] and not names:
        return [f"labels begin at 1, so that class 0 has no images, and {advice}"]
    shown = [names[number] if names else str(number) for number in empty[:SHOWN_NAMES]]
    listed = ", ".join(shown) + (", ..." if len(empty) > SHOWN_NAMES else "")
    return [f"{len(empty):,} of {classes:,} classes have no images ({listed}), and {advice}"]
