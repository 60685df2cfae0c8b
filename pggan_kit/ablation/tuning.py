"""Tuned arms: a search within each variant, with as many trials for each, on seeds and images of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.ablation.plan import Plan
from pggan_kit.ablation.settings import Ablation
from pggan_kit.ablation.sources import bind_sources
from pggan_kit.api.prepare import Prepared, prepare
from pggan_kit.components import Launcher
from pggan_kit.config import gin_files
from pggan_kit.errors import ConfigError
from pggan_kit.plugin_host.plugin_files import RecordedFile
from pggan_kit.sweeps.conduct import read_best, run_sweeps
from pggan_kit.sweeps.plan_reading import plan_search
from pggan_kit.sweeps.study import import_optuna
from pggan_kit.trials.processes import Say

TUNING = "tuning"
"""Name of the folder with the search within each variant."""


def locate_search(out: Path, variant: str) -> Path:
    """Return the folder of the search within a variant."""
    return out / TUNING / variant


def plan_tuning(
    settings: Ablation,
    base: Path,
    variants: Mapping[str, Sequence[str]],
    experiments: Mapping[str, Prepared],
    sha256: Mapping[str, str],
    files: Sequence[RecordedFile],
) -> dict[str, dict[str, Any]]:
    """Return the search within each variant as `Plan.tune` has it; none if the variants are not tuned.

    Args:
        settings: The ablation's settings.
        base: Gin file of the experiment.
        variants: Bindings of each variant.
        experiments: Experiment of each variant.
        sha256: SHA-256 of each plugin file, by its path.
        files: The plan's plugin files.

    Raises:
        UserError: A variant is wrong with some values, or binds what it is tuned by, or would be tuned on the images
            of the comparison.
    """
    tuning = settings.tuning
    if tuning is None:
        return {}
    import_optuna()
    gin_files.parse_text("\n".join(tuning.tuning), "ablate.tune")

    # What tuning binds, the evaluation itself binds otherwise.
    replaced = gin_files.parse_overrides(tuning.tuning)
    evaluation = [*gin_files.leave_out(settings.evaluation, replaced.__contains__), *tuning.tuning]
    seeds = {str(seed): _bind_tuning_seed(settings.resample, seed) for seed in tuning.seeds}
    searches = {}
    for name, own_bindings in variants.items():

        def prepare_with(further: Sequence[str], own_bindings: Sequence[str] = own_bindings) -> Prepared:
            return prepare(base, [*own_bindings, *further], files)

        _require_other_images(prepare_with(evaluation), prepare_with(settings.evaluation), name)
        search = plan_search(
            name,
            experiments[name].built.config.text(),
            tuning,
            seeds,
            settings.primary,
            evaluation,
            settings.average,
            sha256,
            {"it binds": own_bindings},
            prepare_with,
            f"ablate.tune, variant {name}",
        )
        searches[name] = dataclasses.asdict(search)
    return searches


def _bind_tuning_seed(resample: Mapping[str, str], seed: int) -> list[str]:
    """Return the bindings of a tuning run: all that varies in the comparison, and in any case the seed of the rest."""
    bindings = bind_sources(resample, seed)
    if "train.seed" not in [binding.name for binding in gin_files.parse_overrides(bindings)]:
        bindings.append(f"train.seed = {seed}")
    return bindings


def _require_other_images(tuning: Prepared, comparison: Prepared, variant: str) -> None:
    """Check that values are not chosen on the images that the comparison is measured on.

    Raises:
        ConfigError: They would be.
    """
    if _fingerprint_reals(tuning) == _fingerprint_reals(comparison):
        raise ConfigError(
            f"ablate.tune: its `tuning` measures {variant} on the images of the comparison, which would judge "
            "values that they have chosen: bind other images there, e.g. \"test/datasets.MNIST.split = 'tuning'\""
        )


def _fingerprint_reals(prepared: Prepared) -> str:
    """Return the fingerprint of the data set that an evaluation compares with."""
    experiment = prepared.built.experiment
    dataset = experiment.evaluation.dataset or experiment.dataset
    return str(dataset.fingerprint())


def tune_variants(
    plan: Plan, out: Path, launcher: Launcher, owner: Path, say: Say, plugins: Sequence[str | Path]
) -> None:
    """Run the searches of a plan to their ends, all through one launcher; nothing where there are none.

    Args:
        plan: The plan.
        out: The ablation's folder.
        launcher: Launcher that runs the trials.
        owner: File whose lock this process holds as long as the trials may run.
        say: Function that is called with one line for each trial that ends.
        plugins: Files among the plan's plugin files that the user named.
    """
    if plan.tune:
        searches = {locate_search(out, name): search for name, search in plan.searches.items()}
        run_sweeps(searches, launcher, owner.resolve(), say, plugins)


def read_tuned(plan: Plan, out: Path, variant: str) -> dict[str, Any]:
    """Return what the search within a variant has chosen, see `sweeps.conduct.read_best`."""
    return read_best(locate_search(out, variant), plan.searches[variant])


def describe_tuned(plan: Plan, results: Mapping[tuple[str, int], Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the chosen values of each variant, by the results of its trials."""
    described = {}
    for (name, _), result in results.items():
        if name in plan.tune and "tuned" in result:
            search = plan.searches[name]
            described[name] = {
                "bindings": list(result["tuned"]),
                "trials": search.trials,
                "seeds": [int(seed) for seed in search.seeds],
            }
    return described


def list_tuning_notes(analysis: Mapping[str, Any]) -> list[str]:
    """Return a line on the values of each tuned variant."""
    notes = []
    for name, tuned in analysis.get("tuned", {}).items():
        seeds = ", ".join(map(str, tuned["seeds"]))
        notes.append(f"tuned, {name}: {'; '.join(tuned['bindings'])} ({tuned['trials']} trials on seeds {seeds}).")
    return notes
