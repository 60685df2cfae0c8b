"""Say in words what a data set holds: its images, what was left out, and the names of its classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pggan_kit.components import Dataset
from pggan_kit.data.image_kinds import name_image
from pggan_kit.errors import DataError, PluginError
from pggan_kit.schedule import Stage

CLASS_LIMIT = 1_000_000
"""Maximum number of classes: where there are more, labels are numbers of something else, such as dates."""


def get_left_out(dataset: Dataset) -> dict[str, int]:
    """Return the number of entries that a data set did not read, by kind; none where it does not say."""
    return dict(getattr(dataset, "left_out", {}))


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

    Args:
        dataset: Data set of the evaluation.
        training: Training data, with labels.

    Raises:
        DataError: There are no labels, or there is a class that the training data lack.
    """
    if not dataset.classes:
        raise DataError(
            "evaluation.dataset has no labels, and the generator draws images of classes: give it the labels of the "
            "training data's classes"
        )

    # A number alone says which class is meant where one of both has no names.
    names = get_class_names(dataset)
    number_of = {name: number for number, name in enumerate(get_class_names(training))}
    if not names or not number_of:
        if dataset.classes > training.classes:
            raise DataError(
                f"evaluation.dataset has {dataset.classes} classes, and the training data {training.classes}: leave "
                "out the images of others"
            )
        return list(range(dataset.classes))
    for name in names:
        if name not in number_of:
            raise DataError(
                f"evaluation.dataset has a class {name!r}, which the training data lack: rename it, or leave its "
                "images out"
            )
    return [number_of[name] for name in names]


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
