"""Test what is kept of the classes whose arguments are checked."""

from __future__ import annotations

import gc
import weakref

import pytest

from pggan_kit.config.arguments import list_required_parameters, read_annotations


def make_class() -> type:
    """Return a new class, of whose annotations one is defined later or never."""

    class Part:
        def __init__(self, scale: float, other: Later = 0) -> None:  # type: ignore[name-defined] # noqa: F821
            """Take both."""

    return Part


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
