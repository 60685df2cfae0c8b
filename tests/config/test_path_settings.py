"""Test that paths in a run's config are absolute, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from conftest import STUB

from pggan_kit import Component
from pggan_kit.config.gin_files import read_config
from pggan_kit.config.path_settings import make_paths_absolute
from pggan_kit.plugin_host.loading import load_plugins


class Reader:
    """A component with paths, and a text that is none."""

    def __init__(
        self,
        file: str | Path | None = None,
        text: str = "",
        files: Sequence[str | Path] = (),
        by_height: Path | Mapping[int, Path] | None = None,
        pair: tuple[str, Path] = ("", Path()),
    ) -> None:
        self.settings = (file, text, files, by_height, pair)


CASES = {
    ("observers.Reader.file = 'a/b'",): {"observers.Reader.file": "{here}/a/b"},
    ("observers.Reader.text = 'a/b'",): {"observers.Reader.text": "a/b"},
    ("observers.Reader.file = '/a'",): {"observers.Reader.file": "/a"},
    ("observers.Reader.file = '~/a'",): {"observers.Reader.file": "{home}/a"},
    ("observers.Reader.file = None",): {"observers.Reader.file": None},
    ("observers.Reader.file = ''",): {"observers.Reader.file": ""},
    ("x/observers.Reader.file = 'a'",): {"x/observers.Reader.file": "{here}/a"},
    ("data.cache = 'c'",): {"data.cache": "{here}/c"},
    ("A = 'a'", "observers.Reader.file = %A"): {"A": "{here}/a", "observers.Reader.file": "%A"},
    ("A = 'a'", "observers.Reader.file = %A", "observers.Reader.text = %A"): {
        "A": "a",
        "observers.Reader.file": "{here}/a",
        "observers.Reader.text": "%A",
    },
    ("A = 'a'", "B = %A", "observers.Reader.file = %B"): {
        "A": "a",
        "B": "%A",
        "observers.Reader.file": "{here}/a",
    },
    ("A = %B", "B = %A", "observers.Reader.text = 'a'"): {"A": "%B", "B": "%A", "observers.Reader.text": "a"},
    ("observers.Reader.files = ['a', '/b']",): {"observers.Reader.files": "['{here}/a', '/b']"},
    ("A = 'a'", "observers.Reader.files = ('/b', %A)"): {"A": "a", "observers.Reader.files": "('/b', '{here}/a')"},
    ("A = ['a']", "observers.Reader.files = %A"): {"A": "['{here}/a']", "observers.Reader.files": "%A"},
    ("observers.Reader.by_height = {4: 'a', 8: '/b'}",): {"observers.Reader.by_height": "{{4: '{here}/a', 8: '/b'}}"},
    ("observers.Reader.by_height = 'a'",): {"observers.Reader.by_height": "{here}/a"},
    ("observers.Reader.pair = ('a', 'b')",): {"observers.Reader.pair": "('a', '{here}/b')"},
    ("observers.Other.file = 'a'", "observers.Reader.nothing = 'a'"): {
        "observers.Other.file": "a",
        "observers.Reader.nothing": "a",
    },
}  # fmt: skip


@pytest.mark.parametrize("lines", CASES)
def test_paths_become_absolute(lines: tuple[str, ...], tiny: Callable[..., str], tmp_path: Path) -> None:
    """Whether they are known is checked later, with a message."""
    plugins = load_plugins([str(STUB), Component("observers", "Reader", Reader)])
    config = make_paths_absolute(read_config(tiny(*lines, base="")), plugins)
    wanted = {}
    for name, value in CASES[lines].items():
        if isinstance(value, str):
            value = value.format(here=tmp_path, home=Path.home())
        wanted[name] = str(value)
    assert {binding.name: str(binding.value) for binding in config.bindings} == wanted
