"""Overrides of a file that has an experiment as its base: some are the file's own, the others the experiment's."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.config import gin_files
from pggan_kit.config.bindings import Place
from pggan_kit.config.builder import BuiltConfig
from pggan_kit.config.gin_files import OVERRIDE, Config
from pggan_kit.errors import ConfigError

_MACRO_BINDING = re.compile(r"\s*([\w/]+)\s*=")


def split_bindings(bindings: Sequence[str], macros: Collection[str], root: str) -> tuple[list[str], list[str]]:
    """Return the overrides of a file (of its root, of launchers and its macros), and those of all its experiments.

    Args:
        bindings: The overrides.
        macros: Macros of the file.
        root: First part of the file's own settings, `ablate` or `sweep`.
    """
    pattern = re.compile(rf"\s*(\w+/)*({root}|launchers)\b")
    own_bindings = [text for text in bindings if pattern.match(text) or find_macro(text) in macros]
    experiment_bindings = [text for text in bindings if text not in own_bindings]
    return own_bindings, experiment_bindings


def find_macro(text: str) -> str | None:
    """Return the name of the macro that an override defines, or None."""
    match = _MACRO_BINDING.match(text)
    return None if match is None else match[1]


def list_macros(config: Config) -> list[str]:
    """Return the names of the macros that a config defines."""
    return [binding.name for binding in config.bindings if binding.is_macro]


def find_place(built: BuiltConfig[Any], root: str, name: str) -> Place:
    """Return where a setting of a file's root is bound."""
    (place,) = [binding.place for binding in built.config.bindings if binding.key == ("", root, name)]
    return place


def read_base(base: Path, built: BuiltConfig[Any], root: str) -> Config:
    """Return the config of the experiment as its file has it.

    Raises:
        ConfigError: The file is missing or cannot be read; the message says where it is named.
    """
    try:
        return gin_files.read_config(base)
    except ConfigError as error:
        place = find_place(built, root, "base")
        owner = {"ablate": "ablation"}.get(root, root)
        raise ConfigError(f"{place}: {root}.base, which is relative to the {owner}'s file: {error}") from None


def require_one_meaning(own_bindings: Sequence[str], base_config: Config, file: str | Path, base: Path) -> None:
    """Check that no override defines a macro of the file that the experiment has too.

    Raises:
        ConfigError: One does; the message says what to write instead.
    """
    macros = list_macros(base_config)
    for text in own_bindings:
        name = find_macro(text)
        if name in macros:
            raise ConfigError(
                f"{OVERRIDE} '{text}': {file} and {base} both define {name}; give the macro another name in one of "
                "them, or override the setting that uses it"
            )
