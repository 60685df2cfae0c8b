"""Make the reference of hooks from their specs, and the reference of parts from their signatures."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from pggan_kit import hookspecs
from pggan_kit.plugin_host.loading import load_plugins


def write(folder: Path) -> None:
    """Write `hooks.md` and `parts.md`."""
    folder.mkdir(exist_ok=True)
    for name, text in (("hooks", hooks()), ("parts", parts())):
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text() != text:  # Sphinx reads a changed page again
            path.write_text(text)


def hooks() -> str:
    """Return a page of every hook with its arguments and its moment, in the order of the specs."""
    specs = [value for value in vars(hookspecs).values() if hasattr(value, f"{hookspecs.PROJECT}_spec")]
    lines = ["# Hooks", "", *_text(hookspecs), ""]
    for spec in specs:
        lines += [f"## {spec.__name__}", "", "```python", f"{spec.__name__}{inspect.signature(spec)}", "```", ""]
        lines += [*_text(spec), ""]
    return "\n".join(lines)


def parts() -> str:
    """Return a page of every shipped part with its parameters, their types and defaults, by kind."""
    lines = [
        "# Parts and settings",
        "",
        "What a gin file may bind for each part. The [list of parts](../parts.md) says what each of them is.",
        "",
    ]
    kind = ""
    for selector, row in sorted(load_plugins().rows.items()):
        if not row.plugin.origin.startswith("pggan_kit "):
            continue
        if selector.split(".")[0] != kind:
            kind = selector.split(".")[0]
            lines += [f"## {kind}", ""]
        factory, defaults = row.component.factory, row.component.defaults
        lines += [
            f"### {selector}",
            "",
            "```gin",
            *_bindings(selector, factory, defaults),
            "```",
            "",
            *_text(factory),
            "",
        ]
    return "\n".join(lines)


def _bindings(selector: str, factory: Any, defaults: Any) -> list[str]:
    found = []
    for name, parameter in inspect.signature(factory).parameters.items():
        if name in defaults:
            value = defaults[name]
        else:
            value = "(must be given)" if parameter.default is parameter.empty else repr(parameter.default)
        annotation = "" if parameter.annotation is parameter.empty else f"    # {parameter.annotation}"
        found.append(f"{selector}.{name} = {value}{annotation}")
    return found or ["# nothing to bind"]


def _text(thing: Any) -> list[str]:
    """Return a docstring as a block of text, since its `Args:` lists are not Markdown."""
    return ["```text", *(inspect.getdoc(thing) or "").splitlines(), "```"]
