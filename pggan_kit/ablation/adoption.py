"""Adopt finished runs: each takes the place of the trial whose experiment it is, and stays in its own folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pggan_kit.ablation import plan as plans
from pggan_kit.ablation import trial as trials
from pggan_kit.ablation.effects import HARMLESS, MEASURING, grows_by_clock
from pggan_kit.ablation.endpoints import read_ticks
from pggan_kit.ablation.plan import Plan
from pggan_kit.ablation.settings import TRUNK
from pggan_kit.api.prepare import Prepared, prepare_run, prepare_text
from pggan_kit.errors import RunError, UserError
from pggan_kit.plugin_host.contracts import find_marked_hooks
from pggan_kit.plugin_host.plugin_files import RecordedFile
from pggan_kit.runs.checkpoint_identity import (
    Identity,
    Settings,
    describe_difference,
    list_changes,
    merge_other_settings,
    read_noted_fingerprint,
)
from pggan_kit.runs.checkpoints import Entry
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.system.activities import track_items

DATA = "train.dataset"
"""Place whose settings are not compared, because the fingerprint of the data is: folders may be others."""


@dataclass(frozen=True)
class _Candidate:
    """A run that is offered in the place of a trial.

    Attributes:
        files: Its directory.
        about: Content of its `run.json`.
        entry: Row of its last checkpoint.
        noted: Identity that this checkpoint notes.
        settings: Settings in effect, by place, as its config has them.
    """

    files: RunDirectory
    about: Mapping[str, Any]
    entry: Entry
    noted: Identity
    settings: Settings


def adopt_runs(plan: Plan, folder: Path, runs: Sequence[Path], plugins: Sequence[RecordedFile]) -> Plan:
    """Return a plan in which runs take the places of trials.

    Args:
        plan: The plan, with what was adopted before.
        folder: The ablation's folder.
        runs: Directories of finished runs, each with the experiment and the seed of a trial.
        plugins: The plan's plugin files.

    Raises:
        RunError: A run is none of the trials, and the message says in what it differs from the nearest one; or its
            trial has begun or has another run.
    """
    # A run that was adopted before may be gone by now.
    known = [row["run"] for row in plan.adopted]
    offered = [run for run in runs if run.exists() or str(run.resolve()) not in known]
    if not offered:
        return plan
    if plan.looks:
        raise RunError("--adopt: a plan with looks adopts no runs, since its looks decide by runs that nobody has seen")
    if plan.tune:
        raise RunError(
            "--adopt: a plan that tunes its variants adopts no runs, since no run was trained with its values"
        )

    # All runs are read before one is adopted.
    candidates = [_read_candidate(run, plan, plugins) for run in offered]
    own = list(_identify_trials(plan, plugins))

    # Each run takes the place of the one trial that it could have been.
    adopted = list(plan.adopted)
    for candidate in candidates:
        name, seed = _find_trial(candidate, own)
        row = _describe_adopted(candidate, name, seed)
        earlier = next((each for each in adopted if (each["variant"], each["seed"]) == (name, seed)), None)
        if earlier is not None:
            if earlier["run"] != row["run"]:
                raise RunError(f"--adopt {candidate.files.path}: {name} {seed} is {earlier['run']} already")
            continue
        if trials.locate_trial(folder, name, seed).exists():
            raise RunError(
                f"--adopt {candidate.files.path}: {name} {seed} has begun in {folder}; only what has not can be adopted"
            )
        adopted.append(row)
    return dataclasses.replace(plan, adopted=adopted)


def _read_candidate(run: Path, plan: Plan, plugins: Sequence[RecordedFile]) -> _Candidate:
    """Read a run that is offered.

    Args:
        run: Its directory.
        plan: The plan, with the curves that it must have measured and the averages that it must give.
        plugins: The plan's plugin files.

    Raises:
        RunError: There is no run, it is not finished, or its files do not tell all that it was trained with, or lack
            a curve or an average.
    """
    refusal = f"--adopt {run} is refused"
    try:
        files = RunDirectory.open(run)
        about = files.about()
        entry, saved = files.checkpoints().find_last()
        prepared, _ = prepare_run(run, plugins)
    except UserError as error:
        raise RunError(f"--adopt {run}: {error}") from error
    if not saved.ended and saved.images < prepared.schedule().total:
        total = prepared.schedule().total
        raise RunError(f"{refusal}: it is not finished, and at images {saved.images:,} of {total:,}; resume it first")

    # It has to be what a trial would have become.
    _require_complete_record(refusal, run, about, saved)
    _require_same_plugins(refusal, about, prepared)
    _require_curves(refusal, files, plan.curves)
    _require_averages(refusal, files, plan, prepared)
    return _Candidate(files, about, entry, saved.identity, prepared.built.settings)


def _require_complete_record(refusal: str, run: Path, about: Mapping[str, Any], saved: Snapshot) -> None:
    """Check that a run was trained with one experiment from its beginning, which its files describe.

    Raises:
        RunError: It was not.
    """
    if not saved.identity:
        raise RunError(f"{refusal}: its checkpoint does not say of which experiment it is")
    if saved.changes:
        names = ", ".join(saved.changes[0]["bindings"])
        raise RunError(f"{refusal}: {names} changed while it was trained, at images {saved.changes[0]['images']:,}")
    if "stem" in about:
        raise RunError(f"{refusal}: it began with the networks of {about['stem']['run']}")

    # The plan of another ablation has checked that its trunk is what its trials are up to there.
    if "from" in about and not _is_trial(run, about["from"]):
        raise RunError(f"{refusal}: it went on from {about['from']['run']}, which may have been another experiment")


def _require_curves(refusal: str, files: RunDirectory, curves: Sequence[str]) -> None:
    """Check that a run measured the plan's curves at its ticks.

    Raises:
        RunError: It did not, or rows are missing.
    """
    for name in curves:
        try:
            ticks = read_ticks(files, name)
        except RunError as error:
            raise RunError(f"{refusal}: {error}") from error
        if not ticks:
            raise RunError(
                f"{refusal}: it measured no {name} at its ticks, which is a curve of the plan. Leave it out of "
                "--adopt, and its trial is trained"
            )


def _require_averages(refusal: str, files: RunDirectory, plan: Plan, prepared: Prepared) -> None:
    """Check that a run has the averages with which it will be evaluated, or all that they are made of.

    Raises:
        RunError: It has not. Otherwise only its evaluation would say so, after all trials were trained.
    """
    try:
        trials.require_loadable_averages(plan, prepared, files)
    except UserError as error:
        raise RunError(f"{refusal}: {error}") from error


def _is_trial(run: Path, origin: Mapping[str, Any]) -> bool:
    """Return whether a run is the trial of an ablation, and began from its trunk."""
    run = run.resolve()
    if len(run.parents) < 3 or not run.name.isdecimal():
        return False
    folder = run.parents[2]
    name = run.parent.name
    try:
        plan = plans.load_plan(folder)
    except UserError:
        return False
    if name not in plan.shared:
        return False

    # The ablation may have been moved or copied since, and its trunk may be gone.
    own_trunk = trials.locate_trial(folder, TRUNK, int(run.name))
    if Path(origin["run"]) == own_trunk:
        return True
    try:
        return bool(RunDirectory.open(own_trunk).about()["started"] == origin["started"])
    except (UserError, KeyError):
        return False


def _require_same_plugins(refusal: str, about: Mapping[str, Any], prepared: Prepared) -> None:
    """Check that what plugins add to the numbers of a run is what those of this plan add.

    That is the components that its experiment uses, and the hooks of each plugin, which act on every run. A plugin that
    brings others, such as a launcher, may differ.

    Raises:
        RunError: It is not; the message names the plugin.
    """
    recorded_hashes = {row["sha256"] for row in about["plugins"] if row.get("sha256") is not None}
    used: dict[str, str] = {}
    for path, (row, _) in prepared.built.components.items():
        if not f"{path}.".startswith("train.observers."):
            used.setdefault(row.plugin.key, row.selector)
    for plugin in prepared.plugins.loaded:
        if plugin.sha256 is None or plugin.sha256 in recorded_hashes:
            continue
        without = f"{refusal}: it was trained without the plan's plugin file {plugin.origin} ({plugin.sha256})"
        if plugin.key in used:
            raise RunError(f"{without}, which brings its {used[plugin.key]}")
        acting = _list_acting(find_marked_hooks(plugin.object, plugin.name))
        if acting:
            raise RunError(f"{without}, whose hook {acting[0]} acts on every run")

    # What the run had, and the plan has not, matters by its hooks: its components are those of the plan's plugins.
    own_names = {plugin.name for plugin in prepared.plugins.loaded}
    own_hashes = {plugin.sha256 for plugin in prepared.plugins.loaded}
    for row in about["plugins"]:
        acting = _list_acting(row.get("hooks", ["any"]))
        sha256 = row.get("sha256")
        if not acting or sha256 in own_hashes - {None} or (sha256 is None and row["name"] in own_names):
            continue
        trained = f"{refusal}: it was trained with the plugin"
        if sha256 is None:
            raise RunError(f"{trained} {row['name']} ({row['origin']}), which is not here")
        if "hooks" not in row:
            raise RunError(f"{trained} file {row['origin']} ({sha256}), which the plan has not")
        raise RunError(
            f"{trained} file {row['origin']} ({sha256}), whose hook {acting[0]} acts on every run, and the plan has "
            "it not"
        )


def _list_acting(hooks: Iterable[str]) -> list[str]:
    """Return the hooks of a plugin that may change what a run trains."""
    return [name for name in hooks if name != "components"]


@dataclass(frozen=True)
class _OwnTrial:
    """A trial of the plan.

    Attributes:
        name: Its variant.
        seed: Its seed.
        identity: What its checkpoints would note.
        settings: Settings in effect, by place.
        may_measure_otherwise: Whether what a run measures on its way has no effect: neither on when networks grow, nor
            on a curve of the plan.
    """

    name: str
    seed: int
    identity: Identity
    settings: Settings
    may_measure_otherwise: bool


def _identify_trials(plan: Plan, plugins: Sequence[RecordedFile]) -> Iterator[_OwnTrial]:
    """Yield all trials of a plan with their identities."""
    keys = list(plan.list_runs())
    for name, seed in track_items(keys, "comparing runs with trials", len(keys), "trials"):
        prepared = prepare_text(plan.configs[name], f"variant {name}", plan.bind_seed(seed), plugins)
        experiment = prepared.built.experiment
        identity = {
            **prepared.identify_networks(prepared.schedule()),
            "dataset": {"content": experiment.dataset.fingerprint()},
            "settings": merge_other_settings(prepared.built.settings),
        }
        may_measure_otherwise = not plan.curves and grows_by_clock(prepared)
        yield _OwnTrial(name, seed, identity, prepared.built.settings, may_measure_otherwise)


def _find_trial(candidate: _Candidate, own: Sequence[_OwnTrial]) -> tuple[str, int]:
    """Return the name and the seed of the trial whose experiment a run is.

    Raises:
        RunError: There is none; the message names the nearest and the differences.
    """
    compared = [(_merge_differing(candidate, trial), trial) for trial in own]
    (before, now), nearest = min(compared, key=lambda pair: len(pair[0][0] | pair[0][1]))
    if before or now:
        difference = describe_difference(before, now)
        raise RunError(
            f"--adopt {candidate.files.path} is refused: it is none of the trials. It differs least from "
            f"{nearest.name} {nearest.seed}: {difference}"
        )
    return nearest.name, nearest.seed


def _merge_differing(candidate: _Candidate, trial: _OwnTrial) -> tuple[dict[str, str], dict[str, str]]:
    """Return the settings of a run and of a trial that differ and have an effect on what is trained."""
    # Settings without an effect are left out; data sets are compared by their content.
    ignored = _list_ignored([candidate.settings, trial.settings], trial.may_measure_otherwise)
    noted = {**candidate.noted, "dataset": {"content": read_noted_fingerprint(candidate.noted) or "unknown"}}
    before: dict[str, str] = {}
    now: dict[str, str] = {}
    for section, settings in trial.identity.items():
        for name, (old, new) in list_changes(noted.get(section, {}), settings).items():
            if name in ignored:
                continue
            label = "content of the data set" if section == "dataset" else name
            if old is not None:
                before[label] = old
            if new is not None:
                now[label] = new
    return before, now


def _list_ignored(experiments: Sequence[Settings], may_measure_otherwise: bool) -> set[str]:
    """Return the names of settings that have no effect on what is trained, or are compared by their content.

    Args:
        experiments: Settings in effect of a run and of a trial, by place.
        may_measure_otherwise: See `_OwnTrial`.
    """
    # A component may also stand where it has an effect.
    ignored: set[str] = set()
    compared: set[str] = set()
    for settings in experiments:
        for place, own in settings.items():
            if place in (*HARMLESS, DATA) or (may_measure_otherwise and place.startswith(MEASURING)):
                ignored |= own.keys()
            else:
                compared |= own.keys()
    return ignored - compared


def _describe_adopted(candidate: _Candidate, name: str, seed: int) -> dict[str, Any]:
    """Return what the plan records of an adopted run."""
    environment = candidate.about["environment"]
    row = {
        "variant": name,
        "seed": seed,
        "run": str(candidate.files.path.resolve()),
        "checkpoint": candidate.entry.sha256,
        "started": candidate.about["started"],
        "revision": environment["pggan_kit"],
        "hardware": environment["cuda"] or f"{environment['platform']}, {environment['threads']} threads",
    }

    # A trial of another ablation knows more.
    result = trials.read_result(candidate.files.path)
    if result is not None:
        row["revision"] = result["revision"]
        row["hardware"] = result["hardware"]
    return row
