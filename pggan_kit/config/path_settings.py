"""Make the paths in a config absolute, so that a run finds its files from whatever folder it is resumed.

A path is the value of a parameter whose annotation admits a `Path`, such as `folder: str | Path`, or an item of a list
or dict whose annotation admits one there, such as `folders: Sequence[str | Path]`.
"""

from __future__ import annotations

import collections.abc
import typing
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pggan_kit.config.arguments import is_union, read_annotations
from pggan_kit.config.bindings import Binding, Macro, iterate_references
from pggan_kit.config.builder import ROOTS, Roots
from pggan_kit.config.gin_files import Config
from pggan_kit.plugin_host.loading import Plugins


def make_paths_absolute(config: Config, plugins: Plugins, roots: Roots = ROOTS) -> Config:
    """Return a config whose relative paths, which are of the working folder, are absolute; `~` is the home folder.

    Args:
        config: The config.
        plugins: The plugins whose components it may name.
        roots: The roots that it may bind.
    """
    macros = {binding.name: binding for binding in config.bindings if binding.is_macro}
    of_paths = {}
    for binding in config.bindings:
        hint = _find_annotation(binding, plugins, roots)
        if _admits_path(hint):
            of_paths[binding.key] = hint

    # A macro becomes absolute where it stands for paths alone; elsewhere the path takes its place.
    elsewhere: set[str] = set()
    for binding in config.bindings:
        if binding.key not in of_paths:
            references = iterate_references(binding.value)
            elsewhere.update(reference.name for reference in references if isinstance(reference, Macro))

    changed: dict[tuple[str, str, str], Binding] = {}
    for binding in config.bindings:
        if binding.key not in of_paths:
            continue
        # The path may stand behind a macro, and that behind another.
        target = binding
        behind: list[str] = []
        while isinstance(target.value, Macro) and target.value.name in macros and target.value.name not in behind:
            behind.append(target.value.name)
            target = macros[target.value.name]
        value = _make_absolute(target.value, of_paths[binding.key], macros)
        if value != target.value:
            if not elsewhere.isdisjoint(behind):
                target = binding
            changed[target.key] = replace(target, value=value)
    return replace(config, bindings=tuple(changed.get(binding.key, binding) for binding in config.bindings))


def _find_annotation(binding: Binding, plugins: Plugins, roots: Roots) -> Any:
    """Return the annotation of a binding's parameter, None where there is none."""
    factories = dict(roots)
    if binding.selector in plugins.rows:
        factories[binding.selector] = plugins.rows[binding.selector].component.factory
    factory = factories.get(binding.selector)
    if factory is None or binding.is_macro:
        return None
    return read_annotations(factory).get(binding.parameter)


def _admits_path(hint: Any) -> bool:
    """Return whether an annotation admits a path, or something that holds paths."""
    return hint is Path or any(_admits_path(option) for option in typing.get_args(hint))


def _make_absolute(value: Any, hint: Any, macros: Mapping[str, Binding]) -> Any:
    """Return a value whose paths, also inside lists and dicts, are absolute; a macro for one gives way to the path."""
    options = typing.get_args(hint) if is_union(hint) else (hint,)
    text = value
    seen: set[str] = set()
    while isinstance(text, Macro) and text.name in macros and text.name not in seen:
        seen.add(text.name)
        text = macros[text.name].value
    if isinstance(text, str) and text and Path in options:
        return str(Path(text).expanduser().absolute())

    # A list or a dict may hold paths.
    for option in options:
        inside = typing.get_args(option)
        if not _admits_path(option) or not inside:
            continue
        if isinstance(value, Mapping) and _is_dict_hint(option):
            return {key: _make_absolute(item, inside[1], macros) for key, item in value.items()}
        if isinstance(value, (list, tuple)) and not _is_dict_hint(option):
            has_one_hint = typing.get_origin(option) is not tuple or inside[-1] is ...
            hints = [inside[0]] * len(value) if has_one_hint else inside
            if len(hints) == len(value):
                return type(value)(_make_absolute(*pair, macros) for pair in zip(value, hints, strict=True))
    return value


def _is_dict_hint(hint: Any) -> bool:
    return typing.get_origin(hint) in (dict, collections.abc.Mapping)
