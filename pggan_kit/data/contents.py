"""Say in words what a data set holds: its images, what was left out, and the names of its classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pggan_kit.components import Dataset
from pggan_kit.errors import PluginError
from pggan_kit.schedule import Stage


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
