"""Describe plugins and their components, for people and machines."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from pggan_kit.components import KINDS
from pggan_kit.errors import PluginError, did_you_mean, suggest
from pggan_kit.plugin_host.contracts import find_marked_hooks
from pggan_kit.plugin_host.loading import Plugin, Plugins, Row

BRINGS_COMPONENTS = "components"
"""Hook that every plugin with components has, and that goes without saying."""


def list_plugins(plugins: Plugins) -> list[dict[str, Any]]:
    """Return a row for each plugin, broken and blocked ones last.

    Returns:
        Rows with `plugin`, `distribution`, `version`, `origin`, `folder`, `parts`, `hooks`, `blocked` and `broken`.
        `folder` is where the distribution is installed. `parts` are selectors of components; `hooks` has, for each
        hook, the names of those that implement it: selectors, or the plugin's own name. The hooks of components that a
        function makes are unknown, because listing makes no component. `broken` is why the plugin cannot be loaded, or
        None.
    """
    rows = []
    for plugin in plugins.loaded:
        own = {selector: row for selector, row in plugins.rows.items() if row.plugin is plugin}
        implementers: dict[str, Any] = {plugin.name: plugin.object}
        for selector, row in own.items():
            implementers[selector] = row.component.factory

        # Turn the hooks of each implementer into the implementers of each hook.
        hooks: dict[str, list[str]] = {}
        for name, thing in implementers.items():
            for hook in list_hooks(thing, name):
                hooks.setdefault(hook, []).append(name)
        rows.append(_make_row(plugin, list(own), hooks))

    for plugin, reason in plugins.broken:
        rows.append(_make_row(plugin, [], {}, broken=reason))
    for plugin in plugins.blocked:
        rows.append(_make_row(plugin, [], {}, blocked=True))
    return rows


def _make_row(
    plugin: Plugin,
    selectors: list[str],
    hooks: dict[str, list[str]],
    blocked: bool = False,
    broken: str | None = None,
) -> dict[str, Any]:
    return {
        "plugin": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "origin": plugin.origin,
        "folder": plugin.folder,
        "parts": selectors,
        "hooks": hooks,
        "blocked": blocked,
        "broken": broken,
    }


def list_hooks(thing: Any, name: str) -> list[str]:
    """Return the hooks that a plugin, or the class of a component, implements; without `components`."""
    if inspect.isfunction(thing):
        return []
    return [hook for hook in find_marked_hooks(thing, name) if hook != BRINGS_COMPONENTS]


def find_component(plugins: Plugins, selector: str) -> Row:
    """Return the component of a selector, `KIND.NAME`.

    Raises:
        PluginError: There is no such component, or it is blocked; the message has the nearest name.
    """
    if selector in plugins.rows:
        return plugins.rows[selector]

    # The kind is wrong or missing.
    kind, _, name = selector.partition(".")
    if kind not in KINDS:
        raise PluginError(
            f"there is no component {selector}{suggest(_find_same_name(plugins, selector))}; "
            f"name it KIND.NAME, with a kind of {', '.join(KINDS)}"
        )

    # The kind is right, and the name is not.
    of_kind = [row.component.name for row in plugins.rows.values() if row.component.kind == kind]
    near = did_you_mean(name, of_kind)
    hint = "" if near is None else suggest(f"{kind}.{near}")
    message = f"there is no component {selector}{hint}; the {kind} are {', '.join(of_kind) or 'none'}"
    if plugins.blocked:
        message += f"; blocked plugins: {', '.join(plugin.key for plugin in plugins.blocked)}"
    raise PluginError(message)


def _find_same_name(plugins: Plugins, selector: str) -> str | None:
    """Return the selector of a component with the same name and another kind, or else the nearest selector."""
    kind, _, name = selector.partition(".")
    wanted = name or kind
    for known in plugins.rows:
        if known.partition(".")[2].lower() == wanted.lower():
            return known
    return did_you_mean(selector, plugins.rows)


def describe_component(plugins: Plugins, selector: str) -> dict[str, Any]:
    """Describe a component as far as Python knows it.

    Returns:
        `part`, `plugin`, `origin`, `signature`, `docstring`, `parameters`, `hooks`, `file`, `line` and `source`.
        `parameters` are rows with `name`, `type`, `default` and `default_gin`: the gin value that the plugin gives
        where no config binds one, which may name other components. What Python does not know is None.

    Raises:
        PluginError: There is no such component.
    """
    row = find_component(plugins, selector)
    factory = row.component.factory
    signature = _read_signature(factory)

    # A class written in C may have no signature.
    parameters = []
    signature_text = None
    if signature is not None:
        signature_text = f"{selector}{_format_signature(signature)}"
        for parameter in signature.parameters.values():
            parameters.append(_describe_parameter(parameter, row.component.defaults.get(parameter.name)))

    return {
        "part": selector,
        "plugin": row.plugin.name,
        "origin": row.plugin.origin,
        "signature": signature_text,
        "docstring": inspect.getdoc(factory),
        "parameters": parameters,
        "hooks": list_hooks(factory, selector),
        **_find_source(factory),
    }


def _describe_parameter(parameter: inspect.Parameter, default_gin: str | None) -> dict[str, str | None]:
    annotation = None
    if parameter.annotation is not parameter.empty:
        annotation = _format_annotation(parameter.annotation)
    default = None
    if parameter.default is not parameter.empty:
        default = repr(parameter.default)
    return {"name": parameter.name, "type": annotation, "default": default, "default_gin": default_gin}


def _read_signature(factory: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(factory)
    except (TypeError, ValueError):
        return None


def _format_signature(signature: inspect.Signature) -> str:
    """Return a signature without the quotes of postponed annotations, and without its return type."""
    return f"({', '.join(_format_parameter(parameter) for parameter in signature.parameters.values())})"


def _format_parameter(parameter: inspect.Parameter) -> str:
    if parameter.annotation is parameter.empty:
        return str(parameter)
    # `str` of a bare parameter has its stars.
    text = str(parameter.replace(annotation=parameter.empty, default=parameter.empty))
    text += f": {_format_annotation(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        text += f" = {parameter.default!r}"
    return text


def _format_annotation(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    return inspect.formatannotation(annotation)


def _find_source(factory: Callable[..., Any]) -> dict[str, Any]:
    try:
        lines, line = inspect.getsourcelines(factory)
        return {"file": inspect.getsourcefile(factory), "line": line, "source": "".join(lines)}
    except (OSError, TypeError):  # written in C, or in a file that no longer exists
        return {"file": None, "line": None, "source": None}
