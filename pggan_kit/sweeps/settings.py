"""The settings that a sweep's gin file binds as `sweep.*`, and those of tuned arms of ablations, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from pggan_kit.components import Launcher
from pggan_kit.errors import SettingError, check_at_least, check_choice, check_seed
from pggan_kit.sweeps.spaces import read_space

SEARCHES = ("tpe", "random")
"""How values are suggested: by the tree-structured Parzen estimator, or at random."""

PRUNERS = ("median", "halving", "hyperband")
"""What decides at the end of a stage whether a trial goes on."""

STARTUP = 10
"""Number of trials from which on a search goes by them, if the user sets none."""


@dataclass
class Tuning:
    """A search for the values of parameters.

    Args:
        parameters: Range of each parameter, by its gin name: `('uniform', LOW, HIGH)`, `('log', LOW, HIGH)`,
            `('integer', LOW, HIGH)` or `('choice', [VALUES])`. A macro may be a parameter. A text among choices is gin:
            `'@losses.Hinge()'`, or `"'half'"` for a string.
        trials: Number of values of the parameters that are tried, at least 1.
        seeds: Seeds of the runs of each trial. Its value is their mean, the geometric one where logarithms are
            compared.
        search: `tpe`, or `random`.
        startup: Number of trials, at least 1, from which on `tpe` goes by those that have ended, and the pruner
            `median` by those that were trained to their ends.
        pruner: What stops a trial at the end of a stage: `median`, `halving` or `hyperband`. None: every trial is
            trained to its end, and measured there alone.
        search_seed: Seed of the suggestions.

    Raises:
        SettingError: A value is out of range.
    """

    _: KW_ONLY
    parameters: Mapping[str, Any]
    trials: int
    seeds: Sequence[int] = (0,)
    search: str = SEARCHES[0]
    startup: int = STARTUP
    pruner: str | None = None
    search_seed: int = 0

    def __post_init__(self) -> None:
        self.space = read_space(self.parameters)
        check_at_least("trials", self.trials, 1, whole=True)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SettingError("seeds", f"must be at least one, each once, not {list(self.seeds)}")
        for seed in self.seeds:
            check_seed("seeds", seed)
        check_choice("search", self.search, SEARCHES)
        check_at_least("startup", self.startup, 1, whole=True)
        if self.pruner is not None:
            check_choice("pruner", self.pruner, PRUNERS)
        # A setting that nothing reads must not be bound.
        if self.search == "random" and self.pruner != "median" and self.startup != STARTUP:
            raise SettingError(
                "startup", "has no effect with the search 'random' and without the pruner 'median': leave it out"
            )
        check_seed("search_seed", self.search_seed)


@dataclass
class Sweep(Tuning):
    """A search for the values of parameters of an experiment with which it ends best.

    Args:
        parameters, trials, seeds, search, startup, pruner, search_seed: See `Tuning`.
        base: Gin file of the experiment, relative to this one.
        metric: Name of the value that is optimised, as `evaluate` gives it. Its metric states which are better.
        evaluation: Bindings with which trials are measured: of the metric, and of images that no result is reported on,
            such as a tuning split.
        launcher: Launcher that runs the trials.
        bindings: Bindings of all trials.

    Raises:
        SettingError: A value is out of range.
    """

    _: KW_ONLY
    base: str
    metric: str
    evaluation: Sequence[str]
    launcher: Launcher
    bindings: Sequence[str] = ()


@dataclass
class ArmTuning(Tuning):
    """A search within each variant of an ablation, before the variants are compared.

    Args:
        parameters, trials, seeds, search, startup, pruner, search_seed: See `Tuning`. The seeds must be given,
            and are not those of the comparison.
        tuning: Overrides of `ablate.evaluation` that choose other images than those of the comparison.

    Raises:
        SettingError: A value is out of range.
    """

    _: KW_ONLY
    tuning: Sequence[str]


def read_arm_tuning(written: Mapping[str, Any], compared: Sequence[int]) -> ArmTuning:
    """Return the settings of `ablate.tune`.

    Args:
        written: What stands in the config.
        compared: Seeds of the comparison.

    Raises:
        SettingError: An entry is unknown, missing or wrong, or a seed is one of the comparison's.
    """
    known = [name for name in ArmTuning.__dataclass_fields__ if name != "_"]
    for name in written:
        try:
            check_choice("tune", name, known)
        except SettingError as error:
            raise SettingError("tune", f"has an entry that {error.complaint}") from None

    # Wrong kinds are refused here, in terms of `tune`; ranges by `ArmTuning`.
    for name in ("parameters", "trials", "seeds", "tuning"):
        if name not in written:
            raise SettingError("tune", f"must have the entry {name!r}")
    for name in ("seeds", "tuning"):
        if not isinstance(written[name], list | tuple):
            raise SettingError("tune", f"must have a list as its entry {name!r}, not {written[name]!r}")
    if not all(isinstance(text, str) for text in written["tuning"]):
        raise SettingError("tune", f"must have bindings as texts in its entry 'tuning', not {written['tuning']!r}")
    if not isinstance(written["parameters"], Mapping):
        raise SettingError("tune", f"must have a dict as its entry 'parameters', not {written['parameters']!r}")
    try:
        settings = ArmTuning(**written)
    except SettingError as error:
        raise SettingError("tune", f"has an entry that is wrong: {error.setting} {error.complaint}") from None

    # Seeds of the comparison must not choose what it compares.
    shared = sorted(set(settings.seeds) & set(compared))
    if shared:
        raise SettingError("tune", f"has seeds of the comparison, {shared}: values would be chosen by what they decide")
    return settings
