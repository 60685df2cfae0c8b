"""Designs: variants that are made from factors or from named changes, with the contrasts that belong to them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import Any

from pggan_kit.ablation.fractions import Fraction, find_fraction, list_members
from pggan_kit.config import gin_files
from pggan_kit.errors import SettingError, check_choice, did_you_mean, suggest

ALL = "all"
"""Name of the variant with all changes."""

NONE = "none"
"""Name of the variant without any change."""

TIMES = " x "
"""Text between the factors of an interaction, in its name."""

RESOLUTIONS = {"III": 3, "IV": 4, "V": 5}
"""Length of the shortest word of a fraction's defining relation, by the name of its resolution."""

MOST_FACTORS = 10
"""Maximum factors of a design."""

MOST_VARIANTS = 256
"""Maximum variants of a full factorial design."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

Changes = Mapping[str, Sequence[str]]
"""Bindings by the name of a change, or of a factor's level."""


@dataclass(frozen=True)
class Design:
    """What a design makes of its factors or changes.

    Attributes:
        setting: Name of the setting that it comes from.
        variants: Bindings of each variant.
        pairs: Contrasts of two variants.
        effects: Contrasts of factors by name, each with the `weights` of variants, the `factors` that take part, and
            its `role`, `confirmatory` or `exploratory`.
        description: What plans and analyses state of it: its `kind`, `factorial` or `one_at_a_time`.
            Of a factorial `factors` (the levels of each, the first one first), `levels` (of each variant, by factor),
            `runs` and `full_runs` (variants of it, and of the full factorial), `resolution` (None: full), `generators`
            (of each generated factor, the product of columns that is its own), and `aliases` (main effects and
            two-factor interactions that share a column, `-` before those of the opposite sign).
            Of changes one at a time `changes`, `baselines`, and `changed` (the changes of each variant).
    """

    setting: str = ""
    variants: dict[str, list[str]] = field(default_factory=dict)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    effects: dict[str, dict[str, Any]] = field(default_factory=dict)
    description: dict[str, Any] = field(default_factory=dict)


def make_design(
    factors: Mapping[str, Changes],
    resolution: str | None,
    effects: Sequence[str] | None,
    leave_one_out: Changes,
    add_one_in: Changes,
) -> Design:
    """Return the design that the settings of an ablation ask for; see `settings.Ablation`. One without any is empty.

    Raises:
        SettingError: A setting is wrong, or settings do not fit together.
        ConfigError: A binding cannot be read.
    """
    # Factors: all combinations of their levels, or a fraction of these.
    if factors:
        if leave_one_out or add_one_in:
            raise SettingError("factors", "cannot be combined with `leave_one_out` and `add_one_in`: take one design")
        return make_factorial(factors, resolution, effects)

    # One change at a time, or no design.
    for name, value in (("resolution", resolution), ("effects", effects)):
        if value is not None:
            raise SettingError(name, "needs `factors`, and there are none")
    if not leave_one_out and not add_one_in:
        return Design()
    return make_one_at_a_time(leave_one_out, add_one_in)


def make_factorial(factors: Mapping[str, Changes], resolution: str | None, effects: Sequence[str] | None) -> Design:
    """Return a full factorial design, or a fraction of one whose factors have two levels.

    Raises:
        SettingError: A setting is wrong, or an effect cannot be estimated.
    """
    _check_factors(factors)
    fraction = None
    if resolution is not None:
        fraction = _find_fraction(factors, resolution)
    elif _count_combinations(factors) > MOST_VARIANTS:
        raise SettingError(
            "factors",
            f"must make at most {MOST_VARIANTS} variants, and make {_count_combinations(factors)}: take fewer factors "
            "or levels, or a fraction of two-level factors by `resolution`",
        )

    # Each variant is one combination of levels.
    assignments: dict[str, dict[str, str]] = {}
    for levels in product(*factors.values()):
        own = dict(zip(factors, levels, strict=True))
        if fraction is None or fraction.contains(_code_levels(own, factors)):
            assignments["+".join(levels)] = own
    variants = {}
    for name, own in assignments.items():
        variants[name] = [text for factor, level in own.items() for text in factors[factor][level]]

    description: dict[str, Any] = {
        "kind": "factorial",
        "factors": {name: list(levels) for name, levels in factors.items()},
        "levels": assignments,
        "runs": len(assignments),
        "full_runs": _count_combinations(factors),
        "resolution": None,
        "generators": {},
        "aliases": [],
    }
    names = list(factors)

    # A fraction confounds effects with others: its record says which.
    if fraction is not None:
        description["resolution"] = _to_roman(fraction.resolution)
        description["generators"] = {
            names[index]: _name_column(names, word, sign) for index, word, sign in fraction.list_generators()
        }
        description["aliases"] = [
            [_name_column(names, word, sign) for word, sign in chain] for chain in fraction.list_chains(2)
        ]
    return Design("factors", variants, [], _make_effects(factors, assignments, fraction, effects), description)


def _check_factors(factors: Mapping[str, Changes]) -> None:
    """Check names, levels and bindings of factors.

    Raises:
        SettingError: Something is wrong with them.
    """
    # How many factors, and levels of each.
    if len(factors) < 2:
        raise SettingError("factors", f"must name at least two; bind the levels of {', '.join(factors)} as `variants`")
    if len(factors) > MOST_FACTORS:
        raise SettingError("factors", f"must be at most {MOST_FACTORS}, and are {len(factors)}")
    for factor, levels in factors.items():
        if len(levels) < 2:
            raise SettingError(
                "factors", f"must give each factor at least two levels, and gives {factor} {len(levels)}"
            )
        for name in (factor, *levels):
            _check_name("factors", name)

    # Factors must not undo each other.
    _require_disjoint("factors", {name: [*levels.values()] for name, levels in factors.items()})


def _count_combinations(factors: Mapping[str, Changes]) -> int:
    return math.prod(len(levels) for levels in factors.values())


def _check_name(setting: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise SettingError(
            setting,
            f"gives variants their names: {name!r} must begin with a letter or digit, and go on with these and . - _",
        )


def _require_disjoint(setting: str, bindings: Mapping[str, Sequence[Sequence[str]]]) -> None:
    """Check that no two factors, or changes, bind the same parameter: one of them would have no effect.

    Args:
        setting: Name of the setting.
        bindings: The lists of bindings of each factor or change, by its name.

    Raises:
        SettingError: Two of them do.
        ConfigError: A binding cannot be read.
    """
    owners: dict[tuple[str, str, str], str] = {}
    for owner, lists in bindings.items():
        # A parameter may have several values within a factor, one for each level.
        own = {}
        for texts in lists:
            for binding in gin_files.parse_text("\n".join(texts), f"{owner} of ablate.{setting}").bindings:
                own[binding.key] = binding.name
        for key, name in own.items():
            other = owners.setdefault(key, owner)
            if other != owner:
                raise SettingError(
                    setting,
                    f"must bind each parameter in one place: {other} and {owner} both bind {name}, so that variants "
                    "with both would have the value of one alone",
                )


def _find_fraction(factors: Mapping[str, Changes], resolution: str) -> Fraction:
    """Return the smallest fraction of at least a resolution.

    Raises:
        SettingError: There is none.
    """
    # Fractions are of factors with two levels.
    check_choice("resolution", resolution, list(RESOLUTIONS))
    for factor, levels in factors.items():
        if len(levels) != 2:
            raise SettingError(
                "resolution", f"is that of a fraction of two-level factors, and {factor} has {len(levels)} levels"
            )

    # The smallest one that keeps apart what the resolution says.
    fraction = find_fraction(len(factors), RESOLUTIONS[resolution])
    if fraction is None:
        raise SettingError(
            "resolution",
            f"{resolution} of {len(factors)} factors takes all {2 ** len(factors)} combinations: leave it out",
        )
    return fraction


def _code_levels(own: Mapping[str, str], factors: Mapping[str, Changes]) -> int:
    """Return levels as bits: the bit of a two-level factor is set at its second level."""
    code = 0
    for index, (factor, levels) in enumerate(factors.items()):
        if own[factor] != next(iter(levels)):
            code |= 1 << index
    return code


def _to_roman(resolution: int) -> str:
    """Return the name of a resolution of up to `MOST_FACTORS`."""
    return ("III", "IV", "V", "VI", "VII", "VIII", "IX", "X")[resolution - 3]


def _name_column(names: Sequence[str], word: int, sign: int = 1) -> str:
    """Return the name of the effect of some factors, given as bits, with `-` before it if the sign is negative."""
    name = TIMES.join(names[index] for index in list_members(word))
    return name if sign > 0 else f"-{name}"


def _make_effects(
    factors: Mapping[str, Changes],
    assignments: Mapping[str, Mapping[str, str]],
    fraction: Fraction | None,
    confirmatory: Sequence[str] | None,
) -> dict[str, dict[str, Any]]:
    """Return the contrasts of main effects and of interactions; see `Design.effects`.

    Args:
        factors: The factors.
        assignments: The level of each factor in each variant.
        fraction: The fraction of the combinations; None: all.
        confirmatory: Names of the effects that get a verdict; None: all main effects, and the two-factor interactions
            without an alias of at most two factors.

    Raises:
        SettingError: An effect is unknown, is named twice, or cannot be estimated.
    """
    names = list(factors)
    words = [1 << index for index in range(len(names))]
    for one, other in combinations(list(words), 2):
        if fraction is None or not fraction.find_aliases(one | other, 2):
            words.append(one | other)

    # Other effects than these are computed if they are asked for.
    wanted = words
    if confirmatory is not None:
        wanted = [_read_effect(text, names, fraction) for text in confirmatory]
        if not wanted or len(set(wanted)) < len(wanted):
            raise SettingError("effects", f"must name at least one effect, each once, not {list(confirmatory)}")
        words = [*words, *(word for word in wanted if word not in words)]

    effects = {}
    for word in words:
        chosen = [names[index] for index in list_members(word)]
        role = "confirmatory" if word in wanted else "exploratory"
        for levels in product(*(list(factors[name])[1:] for name in chosen)):
            name = _name_effect(chosen, levels, factors)
            weights = _weigh_effect(chosen, levels, factors, assignments)
            effects[name] = {"factors": chosen, "weights": weights, "role": role}
    return effects


def _read_effect(text: str, names: Sequence[str], fraction: Fraction | None) -> int:
    """Return the factors of an effect as bits.

    Raises:
        SettingError: A factor is unknown, or the fraction cannot estimate the effect.
    """
    word = 0
    chosen = text.split(TIMES)
    for name in chosen:
        if name not in names:
            raise SettingError(
                "effects",
                f"names {name!r}, which is not a factor{suggest(did_you_mean(name, names))}; the factors are "
                f"{', '.join(names)}, and an interaction is written {TIMES.join(names[:2])!r}",
            )
        word |= 1 << names.index(name)
    if word.bit_count() < len(chosen):
        raise SettingError("effects", f"names a factor twice in {text!r}")
    if fraction is None:
        return word

    # What has an alias of no more factors cannot be told from an effect that is as likely.
    own_name = _name_column(names, word)
    aliases = fraction.find_aliases(word, word.bit_count())
    if word in fraction.words:
        raise SettingError("effects", f"names {own_name!r}, whose column is constant in this fraction")
    if aliases:
        others = ", ".join(_name_column(names, *alias) for alias in aliases)
        raise SettingError(
            "effects",
            f"names {own_name!r}, which this fraction cannot tell from {others}: take a higher `resolution`, or none",
        )
    return word


def _name_effect(chosen: Sequence[str], levels: Sequence[str], factors: Mapping[str, Changes]) -> str:
    """Return the name of a contrast: with its levels, unless it is the only one of an interaction."""
    name = TIMES.join(chosen)
    if len(chosen) == 1:
        return f"{name}: {levels[0]} - {next(iter(factors[name]))}"
    if all(len(factors[factor]) == 2 for factor in chosen):
        return name
    return f"{name}: {', '.join(levels)}"


def _weigh_effect(
    chosen: Sequence[str],
    levels: Sequence[str],
    factors: Mapping[str, Changes],
    assignments: Mapping[str, Mapping[str, str]],
) -> dict[str, float]:
    """Return the weights of an effect: a difference of differences, and so on, between levels and the first levels.

    It is averaged over the levels of all other factors.
    """
    # How many variants have each combination of the chosen levels.
    repeats = len(assignments) / math.prod(len(factors[name]) for name in chosen)
    weights = {}
    for variant, own in assignments.items():
        # The first level of a factor turns the sign; variants with a third level do not count.
        sign = 1
        for name, level in zip(chosen, levels, strict=True):
            if own[name] == next(iter(factors[name])):
                sign = -sign
            elif own[name] != level:
                sign = 0
        if sign:
            weights[variant] = sign / repeats
    return weights


def make_one_at_a_time(leave_one_out: Changes, add_one_in: Changes) -> Design:
    """Return a design of named changes: all of them but one, none of them but one, or both.

    Raises:
        SettingError: A setting is wrong, or the two name different changes.
    """
    setting = "leave_one_out" if leave_one_out else "add_one_in"
    changes = {name: list(texts) for name, texts in (leave_one_out or add_one_in).items()}
    if leave_one_out and add_one_in and changes != {name: list(texts) for name, texts in add_one_in.items()}:
        raise SettingError("add_one_in", "must have the changes of `leave_one_out`, if both are bound")
    if len(changes) < 2:
        raise SettingError(setting, f"must name at least two changes; bind {', '.join(changes)} as one of `variants`")
    for name in changes:
        _check_name(setting, name)
    _require_disjoint(setting, {name: [texts] for name, texts in changes.items()})

    # Each variant is compared with the baseline that its change is taken from or added to.
    changed: dict[str, list[str]] = {}
    pairs = []
    baselines = []
    for name, others in _list_one_at_a_time(list(changes), bool(leave_one_out), bool(add_one_in)):
        changed[name] = others
        if name in (ALL, NONE):
            baselines.append(name)
        else:
            pairs.append((name, baselines[-1]))
    variants = {name: [text for change in own for text in changes[change]] for name, own in changed.items()}
    description = {"kind": "one_at_a_time", "changes": list(changes), "baselines": baselines, "changed": changed}
    return Design(setting, variants, pairs, {}, description)


def _list_one_at_a_time(changes: list[str], is_leaving: bool, is_adding: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield the names of variants and their changes, each baseline before those that are compared with it."""
    if is_leaving:
        yield ALL, changes
        for name in changes:
            yield f"without_{name}", [other for other in changes if other != name]
    if is_adding:
        yield NONE, []
        for name in changes:
            yield f"with_{name}", [name]


def list_design_notes(description: Mapping[str, Any]) -> list[str]:
    """Return lines for people on a design: what its contrasts mean, and what a fraction cannot tell apart."""
    if not description:
        return []
    if description["kind"] == "one_at_a_time":
        return [f"changes one at a time: {', '.join(description['changes'])}"]

    # What a contrast of factors means.
    lines = [
        f"factorial: {TIMES.join(description['factors'])}. A main effect is the mean of its level over the other "
        "factors, minus that of the first level; an interaction is the difference between two such differences."
    ]

    # What a fraction left out, and what it costs.
    if description["resolution"] is not None:
        generators = [f"{name} = {column}" for name, column in description["generators"].items()]
        lines.append(
            f"fraction of resolution {description['resolution']}: {description['runs']} of the "
            f"{description['full_runs']} combinations, {', '.join(generators)} (columns of -1 and 1)."
        )
        chains = [" = ".join(chain) for chain in description["aliases"]]
        lines.append(
            f"aliases of at most two factors: {'; '.join(chains) or 'none'}. An effect with an alias is the sum of "
            "both, and means the first only if the others are 0."
        )
    return lines
