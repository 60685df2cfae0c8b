"""The public names of Python: what is taken away, renamed or gets other parameters shows here, and in the changelog.

`python tests/test_public_names.py` writes the list again, after a change that is meant.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

LIST = Path(__file__).with_name("public_names.json")

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import reference  # noqa: E402  (it lies beside the pages)


def describe_parameters(thing: Any) -> str:
    """Return the parameters of a function: `config, bindings=, *, stages=`, where = marks those with a default."""
    parts = []
    star = False
    for name, parameter in inspect.signature(thing).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            parts.append("*")
        star = star or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        mark = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        parts.append(f"{mark}{name}{'' if parameter.default is parameter.empty else '='}")
    return ", ".join(parts)


def describe(thing: Any) -> Any:
    """Return what of a name users rely on: parameters of a function; those of a class and of its public methods."""
    if inspect.isclass(thing):
        members = {}
        for name, member in sorted(inspect.getmembers(thing)):
            if name.startswith("_") or not _is_ours(member):
                continue
            members[name] = describe_parameters(member) if inspect.isfunction(member) else "attribute"
        # Nobody makes a Protocol; and what makes an exception differs between versions of Python.
        is_made = not issubclass(thing, BaseException) and not getattr(thing, "_is_protocol", False)
        made = _describe_making(thing) if is_made else ""
        return {"": made, **members}
    if inspect.isroutine(thing):
        return describe_parameters(thing)
    return "constant"


def _describe_making(cls: type) -> str:
    try:
        return describe_parameters(cls)
    except (TypeError, ValueError):
        return ""


def _is_ours(member: Any) -> bool:
    return isinstance(member, property) or getattr(member, "__module__", "").startswith("pggan_kit")


def list_names() -> dict[str, dict[str, Any]]:
    """Return the public names of each module of the front door, and what users rely on of each."""
    names: dict[str, dict[str, Any]] = {}
    for module in reference.FRONT_DOOR:
        opened = importlib.import_module(module)
        for name in reference.list_public_names(module):
            if not name.startswith("_"):
                names.setdefault(module, {})[name] = describe(getattr(opened, name))
    return names


def write(names: dict[str, dict[str, Any]]) -> str:
    return json.dumps(names, indent=1, sort_keys=True) + "\n"


def test_public_names_are_those_that_are_listed() -> None:
    listed = LIST.read_text(encoding="utf-8")
    changed = difflib.unified_diff(listed.splitlines(), write(list_names()).splitlines(), "listed", "now", lineterm="")
    assert not (lines := list(changed)), (
        "public names changed: say so in CHANGELOG.md, let what goes warn for one minor version first "
        "(CONTRIBUTING.md), and run `python tests/test_public_names.py`:\n" + "\n".join(lines)
    )


def test_the_list_has_what_users_call() -> None:
    names = json.loads(LIST.read_text(encoding="utf-8"))
    assert names["pggan_kit"]["train"].startswith("config, bindings=")
    assert "generate" in names["pggan_kit"]["Run"] and "LossSuite" in names["pggan_kit.testing"]


if __name__ == "__main__":
    LIST.write_text(write(list_names()), encoding="utf-8")
