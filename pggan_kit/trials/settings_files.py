"""The gin file of an ablation or a sweep: its settings, and where its experiment and its plugins are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pggan_kit.config import gin_files
from pggan_kit.config.builder import BuiltConfig, build_from_config
from pggan_kit.errors import require_list
from pggan_kit.plugin_host.loading import load_plugins
from pggan_kit.plugin_host.plugin_files import RecordedFile
from pggan_kit.runs.directory import ROOT as RUNS
from pggan_kit.trials.overrides import read_base, require_one_meaning, split_bindings
from pggan_kit.trials.processes import list_recorded_files


@dataclass(frozen=True)
class SettingsFile:
    """The settings that a file describes, with the overrides of one start.

    Attributes:
        built: The settings, and where they are bound.
        base: Gin file of the experiment.
        bindings: The overrides that apply to the experiment.
        sha256: SHA-256 of each file beside the installed plugins, by its path.
        files: The same files, each with the content that it must have.
    """

    built: BuiltConfig[Any]
    base: Path
    bindings: list[str]
    sha256: dict[str, str]
    files: list[RecordedFile]


def choose_folder(file: str | Path, out: str | Path | None) -> Path:
    """Return the folder of what a file describes: the one that was named, or `runs/NAME`."""
    return RUNS / Path(file).stem if out is None else Path(out)


def read_settings_file(
    file: str | Path, bindings: Sequence[str], plugins: Sequence[str | Path], root: str, kind: type
) -> SettingsFile:
    """Read and check the settings of a gin file, and that its experiment's file can be read.

    Args:
        file: The gin file.
        bindings: Overrides of its settings, and of its experiment.
        plugins: Files of plugins beside the installed ones.
        root: First part of the names of its settings, and the command that takes it: `ablate` or `sweep`.
        kind: Class that they are built into. Its attribute `base` names the experiment's file.

    Raises:
        UserError: Something is wrong; the message says what and where.
    """
    require_list("bindings", bindings)
    own_bindings, experiment_bindings = split_bindings(bindings, gin_files.read_config(file), root)
    loaded = load_plugins(plugins)

    # All experiments are built by the code whose SHA-256 is recorded, even if a file is edited meanwhile.
    sha256 = {plugin.origin: plugin.sha256 for plugin in loaded.loaded if plugin.sha256 is not None}
    files = list_recorded_files(Path(file), sha256, plugins, root)

    built = build_from_config(gin_files.read_config(file, own_bindings), loaded, {root: kind})
    base = Path(file).parent / built.experiment.base
    require_one_meaning(own_bindings, read_base(base, built, root), file, base)
    return SettingsFile(built, base, experiment_bindings, sha256, files)
