"""The groups of transforms that an augmentation applies."""

from __future__ import annotations

from collections.abc import Sequence

from pggan_kit import SettingError


def check_policy(policy: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Check a policy, and return it as a tuple.

    Args:
        policy: Names of the groups to apply.
        known: Names of all groups.

    Raises:
        SettingError: The policy is empty, or names an unknown group or the same group twice.
    """
    # A string is a sequence too, of its letters.
    if isinstance(policy, str) or not policy:
        raise SettingError("policy", f"must be a list of at least one of {', '.join(known)}, not {policy!r}")
    for name in policy:
        if name not in known:
            raise SettingError("policy", f"must name groups of {', '.join(known)}, not {name!r}")
    if len(set(policy)) < len(policy):
        raise SettingError("policy", f"must name each group once, not {', '.join(policy)}")
    return tuple(policy)
