"""Test what is kept of the classes whose arguments are checked."""

from __future__ import annotations

import gc
import typing
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest

from pggan_kit.config.arguments import describe_annotation, fits_annotation, list_required_parameters, read_annotations


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
    assert read_annotations(part) == {}
    monkeypatch.setitem(globals(), "Later", int)
    assert read_annotations(part) == {"scale": float, "other": int, "return": type(None)}


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
