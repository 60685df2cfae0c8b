"""Make three references from the code: of hooks, of parts and their settings, and of the front door."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

from pggan_kit import hookspecs
from pggan_kit.plugin_host.loading import load_plugins


def write(folder: Path) -> None:
    """Write `hooks.md`, `parts.md` and `api.md`."""
    folder.mkdir(exist_ok=True)
    for name, text in (("hooks", hooks()), ("parts", parts()), ("api", api())):
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


FRONT_DOOR = {
    "pggan_kit": "What users call, and what authors of parts need.",
    "pggan_kit.components": "The contract of each kind of part.",
    "pggan_kit.testing": "The conformance suite of each kind, and what tests of parts need.",
    "pggan_kit.pictures": "Files of pictures, grids, and images as bytes.",
}
"""The public modules, and what each is for."""


def list_public_names(module: str) -> list[str]:
    """Return the public names of a module of the front door that are defined in this package."""
    names = []
    opened = importlib.import_module(module)
    for name in sorted(getattr(opened, "__all__", vars(opened))):
        thing = getattr(opened, name)
        if inspect.ismodule(thing) or (name.startswith("_") and name != "__version__"):
            continue
        if hasattr(opened, "__all__") or getattr(thing, "__module__", "").startswith("pggan_kit"):
            names.append(name)
    return names


def describe_signature(thing: Any) -> str:
    """Return the parameters of a class or a function as text; nothing of a constant, or where Python knows none."""
    if not callable(thing):
        return ""
    try:
        return str(inspect.signature(thing))
    except (TypeError, ValueError):
        return ""


def api() -> str:
    """Return a page of everything that the front door gives, by module."""
    lines = [
        "# The front door",
        "",
        "Everything that is public in Python: these names stay, or warn for a minor version before they go. The rest",
        "of `pggan_kit` may change at any time.",
        "",
    ]
    for module, purpose in FRONT_DOOR.items():
        lines += [f"## {module}", "", purpose, ""]
        opened = importlib.import_module(module)
        for name in list_public_names(module):
            thing = getattr(opened, name)
            lines += [f"### {module}.{name}", ""]
            signature = describe_signature(thing)
            if signature:
                lines += ["```python", f"{name}{signature}", "```", ""]
            if inspect.isclass(thing) or callable(thing):
                lines += [*_text(thing), ""]
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
