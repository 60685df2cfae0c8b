"""Describe an installation for a report of a fault, without the paths of the person who reports."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pggan_kit.api.prepare import prepare
from pggan_kit.config.operative import Settings
from pggan_kit.errors import UserError, first_line
from pggan_kit.plugin_host import catalogue
from pggan_kit.plugin_host.loading import load_plugins
from pggan_kit.system.hidden_paths import hide_paths
from pggan_kit.system.json_text import json_text
from pggan_kit.system.libraries import describe_gpu_software, list_library_versions
from pggan_kit.system.provenance import describe_environment, describe_hardware, find_revision

VARIABLES = ("CUDA_VISIBLE_DEVICES", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "WORLD_SIZE")
"""Environment variables that decide what computes, and hold no paths."""


def describe_installation(
    config: str | Path | None = None, bindings: Sequence[str] = (), plugins: Sequence[Any] = ()
) -> dict[str, Any]:
    """Describe versions, the device, plugins and a configuration's identity; no paths.

    Args:
        config: A gin file; None for none.
        bindings: See `api.prepare`.
        plugins: See `api.prepare`.

    Returns:
        `revision`, `environment`, `hardware`, `gpu`, `libraries`, `variables`, `plugins`, and `config`: its
        `sha256`, as `identify_settings` returns it, or the `error` that building it raised; None without a config.
    """
    loaded = load_plugins(plugins, accept_broken=True)
    rows = []
    for row in catalogue.list_plugins(loaded):
        if row["broken"] is not None:
            state = f"broken: {hide_paths(row['broken'])}"
        elif row["blocked"]:
            state = "blocked"
        else:
            state = "loaded"
        about = {name: row[name] for name in ("plugin", "distribution", "version")}
        rows.append({**about, "state": state})

    # Nothing here says where files are.
    return {
        "revision": find_revision(),
        "environment": describe_environment(),
        "hardware": describe_hardware(),
        "gpu": describe_gpu_software(),
        "libraries": list_library_versions(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "plugins": rows,
        "config": None if config is None else _describe_config(config, bindings, plugins),
    }


def _describe_config(config: str | Path, bindings: Sequence[str], plugins: Sequence[Any]) -> dict[str, str]:
    """Return the identity of a config, or why it cannot be built: a report may be about just that."""
    try:
        built = prepare(config, bindings, plugins).built
    except UserError as error:
        file = Path(config).absolute()
        places = [str(place) for place in (file, file.parent, Path.home(), Path.cwd())]
        return {"error": hide_paths(first_line(error), *places)}
    return {"sha256": identify_settings(built.settings)}


def identify_settings(settings: Settings) -> str:
    """Return the SHA-256 of all settings in effect, the same wherever the same files are in another folder.

    Args:
        settings: The settings in effect, by place.
    """
    shown: Settings = {}
    for place, values in sorted(settings.items()):
        shown[place] = {name: hide_paths(text) for name, text in sorted(values.items())}
    return hashlib.sha256(json_text(shown).encode()).hexdigest()
