"""What there is to choose from: plugins and their parts, described for people and machines."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from pggan_kit.components import KINDS
from pggan_kit.errors import PluginError, did_you_mean, suggest
from pggan_kit.plugin_host.contracts import marked_hooks
from pggan_kit.plugin_host.loading import Plugin, Plugins, Row

BRINGS_COMPONENTS = "components"


def listing(plugins: Plugins) -> list[dict[str, Any]]:
    """A row for each plugin, blocked ones last: `plugin`, `distribution`, `version`, `origin`, `parts`, `hooks`,
    `blocked`.

    `parts` are selectors, `hooks` those that the plugin or its parts implement, each with who does (the plugin itself
    stands there by its name). Parts that a function makes are not made, and so their hooks are not known.
    """
    rows = []
    for plugin in plugins.loaded:
        parts = {selector: row for selector, row in plugins.rows.items() if row.plugin is plugin}
        hooks: dict[str, list[str]] = {}
        implementers: dict[str, Any] = {plugin.name: plugin.object}
        implementers |= {s: row.component.factory for s, row in parts.items()}
        for name, thing in implementers.items():
            for hook in hooks_of(thing, name):
                hooks.setdefault(hook, []).append(name)
        rows.append(_row(plugin, list(parts), hooks, blocked=False))
    return [*rows, *(_row(plugin, [], {}, blocked=True) for plugin in plugins.blocked)]


def _row(plugin: Plugin, parts: list[str], hooks: dict[str, list[str]], blocked: bool) -> dict[str, Any]:
    return {
        "plugin": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "origin": plugin.origin,
        "parts": parts,
        "hooks": hooks,
        "blocked": blocked,
    }


def hooks_of(thing: Any, name: str) -> list[str]:
    """The hooks that a plugin, or a part's class, implements; bringing components is none that needs to be told."""
    if inspect.isfunction(thing):
        return []
    return [hook for hook in marked_hooks(thing, name) if hook != BRINGS_COMPONENTS]


def find(plugins: Plugins, selector: str) -> Row:
    """The part that a config names so.

    Raises:
        PluginError: there is none, or it is blocked; the message has the nearest name.
    """
    if selector in plugins.rows:
        return plugins.rows[selector]
    kind, _, name = selector.partition(".")
    of_kind = [row.component.name for row in plugins.rows.values() if row.component.kind == kind]
    if kind not in KINDS:
        same_name = [s for s in plugins.rows if s.partition(".")[2].lower() == (name or kind).lower()]
        near = same_name[0] if same_name else did_you_mean(selector, plugins.rows)
        raise PluginError(
            f"there is no part {selector}{suggest(near)}; name it KIND.NAME, with a kind of {', '.join(KINDS)}"
        )
    blocked = f"; blocked plugins: {', '.join(p.key for p in plugins.blocked)}" if plugins.blocked else ""
    near = did_you_mean(name, of_kind)
    hint = suggest(None if near is None else f"{kind}.{near}")
    raise PluginError(f"there is no part {selector}{hint}; the {kind} are {', '.join(of_kind) or 'none'}{blocked}")


def part(plugins: Plugins, selector: str) -> dict[str, Any]:
    """What there is to know of a part: `part`, `plugin`, `origin`, `signature`, `docstring`, `parameters`, `hooks`,
    `file`, `line`, `source`.

    `parameters` are rows with `name`, `type`, `default` and `default_gin`: the value that the plugin gives in configs
    where nobody binds one, which may name other parts. What Python does not know is None.

    Raises:
        PluginError: there is no such part.
    """
    row = find(plugins, selector)
    factory = row.component.factory
    signature = _signature(factory)
    return {
        "part": selector,
        "plugin": row.plugin.name,
        "origin": row.plugin.origin,
        "signature": f"{selector}{_shown(signature)}" if signature else None,
        "docstring": inspect.getdoc(factory),
        "parameters": [
            {
                "name": parameter.name,
                "type": None if parameter.annotation is parameter.empty else _type(parameter.annotation),
                "default": None if parameter.default is parameter.empty else repr(parameter.default),
                "default_gin": row.component.defaults.get(parameter.name),
            }
            for parameter in (signature.parameters.values() if signature else ())
        ],
        "hooks": hooks_of(factory, selector),
        **_source(factory),
    }


def _signature(factory: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(factory)
    except (TypeError, ValueError):
        return None


def _shown(signature: inspect.Signature) -> str:
    """Without the quotes that postponed annotations have."""
    parameters = [
        str(parameter.replace(annotation=parameter.empty))
        if parameter.annotation is parameter.empty
        else _typed(parameter)
        for parameter in signature.parameters.values()
    ]
    return f"({', '.join(parameters)})"


def _typed(parameter: inspect.Parameter) -> str:
    bare = str(parameter.replace(annotation=inspect.Parameter.empty, default=inspect.Parameter.empty))
    default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
    return f"{bare}: {_type(parameter.annotation)}{default}"


def _type(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _source(factory: Callable[..., Any]) -> dict[str, Any]:
    try:
        lines, line = inspect.getsourcelines(factory)
        return {"file": inspect.getsourcefile(factory), "line": line, "source": "".join(lines)}
    except (OSError, TypeError):  # written in C, or in a file that is gone
        return {"file": None, "line": None, "source": None}
