"""The file of a plan: fixed at the first start, read again at each later one, and compared with what is asked then."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from pggan_kit.errors import RunError
from pggan_kit.system.files import explain_damage, read_text, write_atomically
from pggan_kit.system.json_text import json_text

LONGEST_SHOWN = 120
"""Maximum characters of a value in an error message."""


class HashedPlan(Protocol):
    """A plan, which is a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def hash(self) -> str:
        """The SHA-256 of what may not change after the first start."""


PlanT = TypeVar("PlanT", bound=HashedPlan)


def write_plan_file(plan: HashedPlan, path: Path) -> None:
    """Write the fields of a plan and its hash."""
    content = {**dataclasses.asdict(plan), "hash": plan.hash}
    write_atomically(path, (json_text(content, indent=1) + "\n").encode())


def load_plan_file(
    path: Path, kind: type[PlanT], noun: str, remains: str, check: Callable[[PlanT], None] | None = None
) -> PlanT:
    """Load the plan that a file holds.

    Args:
        path: The file.
        kind: Class of the plan.
        noun: What has such a plan, `ablation` or `sweep`, for error messages.
        remains: What can be read without a plan of this version, for error messages.
        check: Function that raises a TypeError where the fields of a plan are not what they should be.

    Raises:
        RunError: The file is missing, of another version, or not what was written.
    """
    with explain_damage(path):
        try:
            text = read_text(path)
        except FileNotFoundError:
            raise RunError(f"{path.parent} holds no {noun} (it has no {path.name})") from None
        content = json.loads(text)
        recorded_hash = content.pop("hash")
        _require_own_format(path, content, kind, remains)
        plan = kind(**content)
        if check is not None:
            check(plan)
        own_hash = plan.hash

    # A plan edited after the first start would no longer be the one that was fixed.
    if own_hash != recorded_hash:
        raise RunError(f"{path} was changed by hand: its hash is not that of its content")
    return plan


def require_planned_config(path: Path, planned: str, record: str) -> None:
    """Check that the config beside a plan has the content that the plan records.

    Args:
        path: The config.
        planned: What the plan records.
        record: Name of the plan's file, for error messages.

    Raises:
        RunError: It has another content, or cannot be read.
    """
    with explain_damage(path):
        text = read_text(path)
    if text != planned:
        raise RunError(f"{path} is not what {record} holds: it was changed by hand; the same command writes it again")


def _require_own_format(path: Path, content: Mapping[str, Any], kind: type[HashedPlan], remains: str) -> None:
    """Check that a file has the fields of this version.

    Raises:
        RunError: It has not; the message names them.
    """
    known = [field.name for field in dataclasses.fields(kind)]
    lacking = [name for name in known if name not in content and name not in list_defaults(kind)]
    unknown = [name for name in content if name not in known]
    if not lacking and not unknown:
        return
    differences = [f"lacks `{name}`" for name in lacking] + [f"has `{name}`" for name in unknown]
    raise RunError(f"{path} is of another version of pggan_kit, or damaged: it {', '.join(differences)}. {remains}")


def list_defaults(kind: type[HashedPlan]) -> dict[str, Any]:
    """Return the default of each field of a plan that has one, by the field's name."""
    defaults: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            defaults[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = field.default_factory()
    return defaults


def describe_change(old: Any, new: Any) -> str:
    """Return how a value of a plan changed; of a config the first line that differs, which says more than its head."""
    if isinstance(old, str) and isinstance(new, str) and "\n" in old:
        old_lines = old.splitlines()
        new_lines = new.splitlines()
        if old_lines == new_lines:
            return "has other line ends"
        if sorted(old_lines) == sorted(new_lines):
            pairs = zip(old_lines, new_lines, strict=True)
            old, new = next(pair for pair in pairs if pair[0] != pair[1])
            return f"has its lines in another order: where it had `{_shorten(old)}`, it has `{_shorten(new)}`"
        # Lines may occur more than once.
        old = next(iter(Counter(old_lines) - Counter(new_lines)), None)
        new = next(iter(Counter(new_lines) - Counter(old_lines)), None)
    return f"was {_shorten(old)} and is {_shorten(new)}"


def _shorten(value: Any) -> str:
    """Return a value as text of at most `LONGEST_SHOWN` characters."""
    if value is None:
        return "not there"
    text = str(value) or "empty"
    if len(text) > LONGEST_SHOWN:
        return f"{text[:LONGEST_SHOWN]}..."
    return text
