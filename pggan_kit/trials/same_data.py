"""Check that all trials have the same data, however long an ablation or a sweep was stopped in between."""

from __future__ import annotations

import json
from pathlib import Path

from pggan_kit.api.prepare import Prepared
from pggan_kit.errors import RunError
from pggan_kit.plugin_host.failures import explain_unforeseen
from pggan_kit.system.files import explain_damage, read_text, write_atomically
from pggan_kit.system.json_text import json_text
from pggan_kit.system.locks import hold_when_free

RECORD = "data.json"
"""Name of the file with the fingerprint of each data set, by its settings."""

LOCK = Path("locks", "data.lock")
"""File whose lock is held while the record is compared."""


def require_same_data(prepared: Prepared, folder: Path) -> None:
    """Check that the data sets of a trial are what the first trial with the same ones found; record new ones.

    Args:
        prepared: The trial's experiment, as it is evaluated.
        folder: The folder of the ablation or the sweep.

    Raises:
        RunError: A data set has changed, or the record is damaged.
    """
    experiment = prepared.built.experiment
    datasets = {"train.dataset": experiment.dataset}
    if experiment.evaluation.dataset is not None:
        datasets["evaluation.dataset"] = experiment.evaluation.dataset
    with explain_unforeseen("reading the data set", prepared.built.components):
        fingerprints = {place: dataset.fingerprint() for place, dataset in datasets.items()}

    # Trials may have data of their own, by their variants or seeds.
    path = folder / RECORD
    with hold_when_free(folder / LOCK, lambda holder: None):
        record: dict[str, str] = {}
        with explain_damage(path):
            if path.exists():
                record = dict(json.loads(read_text(path)))
        known = dict(record)
        for place, fingerprint in fingerprints.items():
            settings = json_text(prepared.built.settings[place])
            if record.setdefault(settings, fingerprint) != fingerprint:
                raise RunError(
                    f"{place} has other images or labels than in the first trials of {folder}: put these back, or "
                    "start from scratch in another folder with --out"
                )
        if record != known:
            write_atomically(path, (json_text(record, indent=1) + "\n").encode())
