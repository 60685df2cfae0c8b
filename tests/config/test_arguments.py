"""Test what is kept of the classes whose arguments are checked."""

from __future__ import annotations

import gc
import typing
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest

from pggan_kit.config.arguments import (
    check_arguments,
    describe_annotation,
    fits_annotation,
    list_required_parameters,
    read_annotations,
)
from pggan_kit.errors import SettingError


def make_class() -> type:
    """Return a new class, of whose annotations one is defined later or never."""

    class Part:
        def __init__(self, scale: float, other: Later = 0) -> None:  # type: ignore[name-defined] # noqa: F821
            """Take both."""

    return Part


@pytest.mark.parametrize("hint", [list, tuple, Sequence, *(typing.List, typing.Tuple, typing.Iterable)])  # noqa: UP006
def test_a_list_of_anything(hint: Any) -> None:
    assert fits_annotation([1, "a"], hint) and fits_annotation((), hint) and fits_annotation((1,), hint | None)
    assert not fits_annotation({1: 2}, hint) and not fits_annotation("ab", hint)
    assert describe_annotation(hint) == "a list"


@pytest.mark.parametrize("hint", [dict, Mapping, *(typing.Dict, typing.Mapping)])  # noqa: UP006
def test_a_dict_of_anything(hint: Any) -> None:
    assert fits_annotation({1: "a"}, hint) and fits_annotation({}, typing.Optional[hint])  # noqa: UP045
    assert not fits_annotation([1], hint)
    assert describe_annotation(hint) == "a dict"


def test_an_empty_tuple_and_a_literal_are_taken_at_their_word() -> None:
    for empty in (tuple[()], typing.Tuple[()]):  # noqa: UP006
        assert fits_annotation([], empty) and not fits_annotation([1], empty)
        assert describe_annotation(empty) == "an empty list"
    assert fits_annotation(1, Literal[1, "a"]) and not fits_annotation(True, Literal[1, "a"])


def test_annotations_that_cannot_be_evaluated_yet_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    part = make_class()
    assert read_annotations(part) == {"scale": float, "return": type(None)}
    monkeypatch.setitem(globals(), "Later", int)
    assert read_annotations(part) == {"scale": float, "other": int, "return": type(None)}


def test_one_annotation_that_cannot_be_evaluated_leaves_the_checks_of_the_others() -> None:
    """Names that are imported under TYPE_CHECKING are missing at run time."""
    part = make_class()
    check_arguments(part, {"scale": 1.0, "other": "anything"})
    with pytest.raises(SettingError, match="scale must be a number, not 'wide'"):
        check_arguments(part, {"scale": "wide", "other": 1})

    def make(count: int | None = None, *, layers: dict[str, Later] = {}) -> None:  # type: ignore[name-defined] # noqa: B006, F821
        """Take both."""

    with pytest.raises(SettingError, match=r"count must be a whole number or None, not 1\.5"):
        check_arguments(make, {"count": 1.5, "layers": 3})


def test_an_annotation_that_is_no_type_is_left_alone() -> None:
    def make(count: int, scale: 3 = None) -> None:  # type: ignore[valid-type]
        """Take both."""

    check_arguments(make, {"count": 1, "scale": 2.0})
    with pytest.raises(SettingError, match="count must be a whole number"):
        check_arguments(make, {"count": "a"})


def test_a_class_is_freed_although_its_signature_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook and each load of a plugin's file make new ones."""
    monkeypatch.setitem(globals(), "Later", int)
    part = make_class()
    reference = weakref.ref(part)
    assert list_required_parameters(part) == ["scale"]
    assert read_annotations(part)["scale"] is float
    del part
    gc.collect()
    assert reference() is None
