"""Make the paths in a config absolute, so that a run finds its files from whatever folder it is resumed.

A path is the value of a parameter whose annotation admits a `Path`, such as `folder: str | Path`.
"""

from __future__ import annotations

import typing
from dataclasses import replace
from pathlib import Path

from pggan_kit.config.arguments import read_annotations
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
    of_paths = [binding for binding in config.bindings if _takes_path(binding, plugins, roots)]

    # A macro becomes absolute where it stands for paths alone; elsewhere the path takes its place.
    elsewhere: set[str] = set()
    for binding in config.bindings:
        if binding not in of_paths:
            references = iterate_references(binding.value)
            elsewhere.update(reference.name for reference in references if isinstance(reference, Macro))

    changed: dict[tuple[str, str, str], Binding] = {}
    for binding in of_paths:
        # The path may stand behind a macro, and that behind another.
        target = binding
        behind: list[str] = []
        while isinstance(target.value, Macro) and target.value.name in macros and target.value.name not in behind:
            behind.append(target.value.name)
            target = macros[target.value.name]
        if isinstance(target.value, str) and target.value:
            if not elsewhere.isdisjoint(behind):
                target = replace(binding, value=target.value)
            path = Path(target.value).expanduser().absolute()
            changed[target.key] = replace(target, value=str(path))
    return replace(config, bindings=tuple(changed.get(binding.key, binding) for binding in config.bindings))


def _takes_path(binding: Binding, plugins: Plugins, roots: Roots) -> bool:
    """Return whether a binding's parameter takes a path."""
    factories = dict(roots)
    if binding.selector in plugins.rows:
        factories[binding.selector] = plugins.rows[binding.selector].component.factory
    factory = factories.get(binding.selector)
    if factory is None or binding.is_macro:
        return False
    hint = read_annotations(factory).get(binding.parameter)
    return Path in (hint, *typing.get_args(hint))
