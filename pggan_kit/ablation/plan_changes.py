"""Compare a plan with the one that was fixed at the first start: what was added is exploratory, all else the same."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pggan_kit.ablation.plan import PLAN, Plan, load_plan
from pggan_kit.errors import RunError
from pggan_kit.trials.plan_files import describe_change, list_defaults


def compare_with_fixed(plan: Plan, folder: Path) -> Plan:
    """Compare a plan with the one that was fixed in a folder at the first start, if there is one.

    Returns:
        The plan that is fixed there, with what was added since.

    Raises:
        RunError: The folder holds another plan; the message names what differs.
    """
    path = folder / PLAN
    if not path.exists():
        return plan

    # Seeds, variants and contrasts that the first start did not have are exploratory; all else must be the same.
    fixed = load_plan(folder)
    # A control that was added has the first of them, whatever their order is now.
    planned = [seed for seed in plan.seeds if seed in fixed.seeds]
    added = [seed for seed in fixed.exploratory if seed in plan.seeds]
    added += [seed for seed in plan.seeds if seed not in fixed.all_seeds]
    current = dataclasses.replace(plan, seeds=planned, exploratory=added, adopted=fixed.adopted)

    # Nothing that was added and run may go again, and a plan with looks takes no additions.
    missing = set(fixed.exploratory) - set(added)
    if missing:
        raise RunError(f"{path}: seeds {sorted(missing)} were run there and are missing in ablate.seeds now")
    gone = [name for name in fixed.exploratory_variants if name not in current.exploratory_variants]
    if gone:
        raise RunError(f"{path}: variants {gone} were run there and are missing in ablate.variants now")
    for variant, against in fixed.exploratory_contrasts:
        if [variant, against] not in current.exploratory_contrasts:
            raise RunError(
                f"{path}: the contrast {variant} - {against} was added there and is missing in ablate.contrasts now"
            )
    additions = {"seeds": added, "variants": current.exploratory_variants, "contrasts": current.exploratory_contrasts}
    for kind, names in additions.items():
        if names and fixed.looks:
            raise RunError(f"{path}: {kind} {names} cannot be added: its looks decide when to stop, and are fixed")
    if current.hash != fixed.hash:
        raise RunError(
            f"{folder} was begun with another plan ({_describe_difference(fixed, current)}). Change it back, or start "
            "from scratch in another folder with --out"
        )

    # What changed in all variants is a change of the plan, and was said as one.
    for name in fixed.exploratory_variants:
        old_count = fixed.controls.get(name)
        new_count = current.controls.get(name)
        if old_count != new_count:
            raise RunError(
                f"{path}: its ablate.controls {describe_change({name: old_count}, {name: new_count})}. The number of "
                f"seeds of {name} was chosen there when it was added: change it back"
            )
        if fixed.configs[name] != current.configs[name]:
            change = describe_change(fixed.configs[name], current.configs[name])
            raise RunError(
                f"{folder} has runs of another variant {name} (its config {change}). Change it back, or add the new "
                "one under another name"
            )
    return current


def _describe_difference(old_plan: Plan, new_plan: Plan) -> str:
    """Return which field of a plan changed, and how; of mappings the first entry that changed."""
    defaults = list_defaults(Plan)
    old_fields = {**defaults, **old_plan.fixed_fields}
    new_fields = {**defaults, **new_plan.fixed_fields}
    name = next(name for name in old_fields if _have_other_text(old_fields[name], new_fields[name]))
    old: Any = old_fields[name]
    new: Any = new_fields[name]
    while isinstance(old, Mapping) and isinstance(new, Mapping):
        key = next(key for key in {**old, **new} if _have_other_text(old.get(key), new.get(key)))
        name = f"{name}: {key}"
        old = old.get(key)
        new = new.get(key)

    return f"{name} {describe_change(old, new)}"


def _have_other_text(old: Any, new: Any) -> bool:
    """Return whether two values differ in a file, as 3 and 3.0 do, which are equal."""
    return _write_text(old) != _write_text(new)


def _write_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)
