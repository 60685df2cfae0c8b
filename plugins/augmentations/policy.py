"""Which groups of transforms an augmentation applies."""

from __future__ import annotations

from collections.abc import Sequence

from pggan_kit import SettingError


def checked_policy(policy: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The policy, as a tuple.

    Raises:
        ValueError: it is empty, names an unknown group, or one twice.
    """
    if isinstance(policy, str) or not policy:
        raise SettingError("policy", f"must be a list of at least one of {', '.join(known)}, not {policy!r}")
    for name in policy:
        if name not in known:
            raise SettingError("policy", f"knows {', '.join(known)}, and not {name!r}")
    if len(set(policy)) < len(policy):
        raise SettingError("policy", f"names a group twice: {', '.join(policy)}")
    return tuple(policy)
