"""Sources of variation: what differs between the trials of a variant, as bindings that take a trial's seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from pggan_kit.config import gin_files
from pggan_kit.errors import ConfigError, SettingError

SEED = "{seed}"
"""Placeholder of a trial's seed in a binding."""

EVERYTHING: Mapping[str, str] = MappingProxyType({"everything": f"train.seed = {SEED}"})
"""The sources of an ablation that names none: one seed for all randomness."""


def check_sources(sources: Mapping[str, str]) -> None:
    """Check that sources are bindings that take the seed, and at least one.

    Raises:
        SettingError: They are not.
    """
    if not sources:
        raise SettingError("resample", "must name at least one source of variation, as {'order': 'data.seed = {seed}'}")
    for name, binding in sources.items():
        target, is_binding, value = binding.partition("=")
        if not is_binding or SEED in target or SEED not in value:
            raise SettingError(
                "resample", f"must give {name!r} a binding to {SEED}, as 'data.seed = {SEED}', not {binding!r}"
            )


def bind_sources(sources: Mapping[str, str], seed: int) -> list[str]:
    """Return the bindings of a trial with a seed."""
    return [binding.replace(SEED, str(seed)) for binding in sources.values()]


def require_free_sources(sources: Mapping[str, str], bindings: Sequence[str], owner: str) -> None:
    """Check that bindings do not bind what is drawn from the seeds.

    Args:
        sources: The sources.
        bindings: The bindings.
        owner: What holds them, with its verb, for the message.

    Raises:
        ConfigError: They bind it.
    """
    drawn = gin_files.parse_overrides(bind_sources(sources, 0))
    for binding in gin_files.parse_overrides(bindings):
        if binding in drawn:
            raise ConfigError(f"{owner} {binding.name}; bind ablate.seeds instead")
