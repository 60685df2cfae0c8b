"""Overrides of a file that has an experiment as its base: some are the file's own, the others the experiment's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pggan_kit.config import gin_files
from pggan_kit.config.bindings import Binding, Place
from pggan_kit.config.builder import BuiltConfig
from pggan_kit.config.gin_files import Config
from pggan_kit.errors import ConfigError


def split_bindings(bindings: Sequence[str], config: Config, root: str) -> tuple[list[str], list[str]]:
    """Return the overrides of a file (of its root, of launchers and its macros), and those of all its experiments.

    Args:
        bindings: The overrides.
        config: The file.
        root: First part of the file's own settings, `ablate` or `sweep`.

    Raises:
        ConfigError: An override is broken, or binds nothing.
    """
    macros = list_macros(config)

    def is_own(binding: Binding) -> bool:
        return binding.selector.partition(".")[0] in (root, "launchers") or binding.name in macros

    own_bindings = gin_files.leave_out(bindings, lambda binding: not is_own(binding), config.bindings)
    experiment_bindings = gin_files.leave_out(bindings, is_own, config.bindings)
    return own_bindings, experiment_bindings


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
    for binding in gin_files.parse_overrides(own_bindings):
        if binding.name in macros:
            raise ConfigError(
                f"{binding.place}: {file} and {base} both define {binding.name}; give the macro another name in one of "
                "them, or override the setting that uses it"
            )
