"""The settings that an ablation's gin file binds as `ablate.*`, checked."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from pggan_kit.ablation.contrasts import find_role
from pggan_kit.ablation.designs import Changes, make_design
from pggan_kit.ablation.error_spending import SPENDING, spend_on_hypothesis
from pggan_kit.ablation.robustness import name_average
from pggan_kit.ablation.sequential import FUTILITY
from pggan_kit.ablation.sources import EVERYTHING, check_sources
from pggan_kit.ablation.statistics import ALPHA, compute_smallest_p, count_pairs_needed
from pggan_kit.components import Launcher
from pggan_kit.errors import SettingError, check_above, check_between, check_choice, check_finite, check_seed
from pggan_kit.growth.power_functions import LARGEST_WIDTH
from pggan_kit.sweeps.settings import read_arm_tuning

TRUNK = "trunk"
"""Name of the run before the first difference; no variant may have it."""

LONGEST_NAME = 60
"""Maximum characters of a variant's name."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass
class Ablation:
    """Variants of one experiment, trained with the same seeds, and the questions that they answer.

    Args:
        base: Gin file of the experiment, relative to this one.
        variants: Bindings in which each variant differs from the base, by its name, e.g. `{'linear': [], 'hard':
            ['train.switch = @switches.Hard()']}`. The config of the first one is also trained up to the first
            difference. A design makes variants by itself; these come after them.
        seeds: Seeds of the runs of each variant, each from 0 to 2**63 - 1; variants with one seed see the same images
            and latents. At least as many as it takes to find a difference at all: 6 for one confirmatory contrast, 7
            for two or three, 8 for four to six.
        contrasts: Pairs (variant, against) that are compared. Those without a control are confirmatory: Holm's
            correction covers them. A design has contrasts of its own; these come after them.
        primary: Name of the one value that answers, as `evaluate` gives it, for the averaged generator at the last
            checkpoint. Its metric states whether values or their logarithms are compared, and which are better.
        margin: Largest difference of the primary that counts as none in the test of equivalence, above 0; of its
            logarithm if logarithms are compared (0.1 is about 10 %).
        launcher: Launcher that runs the trials.
        controls: Variants that only help to read the others, each with the number of seeds (the first ones) that it
            is trained with.
        bindings: Bindings of all variants, before their own.
        evaluation: Bindings with which finished runs are evaluated, e.g. of the held-out data.
        average: Average of the generator that is evaluated: its name, or a width of a power function, such as 0.05.
            None for the first of each variant's `train.averages`.
        averages: Further averages, by names or widths, with which finished runs are also evaluated: a verdict is
            robust only if it is the same with each of them.
        confirm: Further values of the evaluation that must give the same verdict, e.g. `['FID_b']` of another
            extractor. They are compared on the scale of the primary, within its margin.
        curves: Values of `train.metrics`, which are measured at ticks, e.g. `['FID']`. The area under each curve is an
            endpoint over the whole run, `FID_area`, and over each stage, `FID_area_28x28`.
        quality: Value to reach, by the name of a curve, e.g. `{'FID': 10}`: the images up to it are the endpoint
            `images_to_FID_10`.
        resample: What varies between the trials of a variant: bindings in which `{seed}` is the trial's seed, by the
            name of what they drive, e.g. `{'networks': 'train.network_seed = {seed}'}`. All else is the same in all
            trials. Default: `{'everything': 'train.seed = {seed}'}`.
        factors: Factorial design: the bindings of each level of each factor, e.g. `{'switch': {'soft': [], 'hard':
            ['train.switch = @switches.Hard()']}, 'loss': ...}`. Each combination is a variant, called `soft+hinge`.
            Main effects and interactions are differences from the first levels.
        resolution: Resolution that a fraction of the combinations must have, `'III'`, `'IV'` or `'V'`, if all factors
            have two levels; the smallest one is taken. None: all combinations.
        effects: Effects of the factors that are confirmatory, e.g. `['switch', 'switch x loss']`. None: all main
            effects, and those two-factor interactions that have no alias of at most two factors.
        leave_one_out: Bindings of named changes. The variants are `all`, with all changes, and `without_NAME` for each
            of them, which is compared with `all`.
        add_one_in: Bindings of named changes. The variants are `none`, which is the base, and `with_NAME` for each of
            them, which is compared with `none`. If `leave_one_out` is bound too, it has the same changes.
        looks: Numbers of pairs after which the results are looked at, the last one that of all seeds. A contrast that
            is decided stops there, and the runs that only it needs are not trained. With one look or none, the results
            are looked at once, in the end.
        spending: How the error is spent over the looks: `pocock`, about evenly, or `obrien_fleming`, little at early
            looks.
        futility: Probability from 0 to 1: a contrast also stops, undecided, at a look that predicts a decision by the
            last look with less than this. 0: never.
        tune: Search for the values of parameters within each variant, before they are compared: `parameters`, `trials`,
            `seeds` (other ones than those of the comparison), `tuning` (overrides of `evaluation` that choose other
            images), and what else `sweeps.settings.Tuning` has. Empty: variants are trained as they are.

    Raises:
        SettingError: A value is out of range.
    """

    _: KW_ONLY
    base: str
    variants: Changes = field(default_factory=dict)
    seeds: Sequence[int]
    contrasts: Sequence[tuple[str, str]] = ()
    primary: str
    margin: float
    launcher: Launcher
    controls: Mapping[str, int] = field(default_factory=dict)
    bindings: Sequence[str] = ()
    evaluation: Sequence[str] = ()
    average: str | float | None = None
    averages: Sequence[str | float] = ()
    confirm: Sequence[str] = ()
    curves: Sequence[str] = ()
    quality: Mapping[str, float] = field(default_factory=dict)
    resample: Mapping[str, str] = field(default_factory=lambda: dict(EVERYTHING))
    factors: Mapping[str, Changes] = field(default_factory=dict)
    resolution: str | None = None
    effects: Sequence[str] | None = None
    leave_one_out: Changes = field(default_factory=dict)
    add_one_in: Changes = field(default_factory=dict)
    looks: Sequence[int] = ()
    spending: str = SPENDING[0]
    futility: float = FUTILITY
    tune: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.design = make_design(self.factors, self.resolution, self.effects, self.leave_one_out, self.add_one_in)
        self._check_variants()
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SettingError("seeds", f"must be at least one, each once, not {list(self.seeds)}")
        for seed in self.seeds:
            check_seed("seeds", seed)

        # Controls and contrasts refer to variants and seeds.
        for name, count in self.controls.items():
            self._require_variant("controls", name)
            if not 1 <= count <= len(self.seeds):
                raise SettingError(
                    "controls", f"must give {name} from 1 to {len(self.seeds)} of the seeds, and gives it {count}"
                )
        self._check_contrasts()
        self._check_looks()
        self.tuning = read_arm_tuning(self.tune, self.seeds) if self.tune else None

        check_sources(self.resample)
        check_above("margin", self.margin, 0)
        check_finite("margin", self.margin)
        for name, average in [("average", self.average), *(("averages", each) for each in self.averages)]:
            if isinstance(average, (int, float)):
                check_between(name, average, 0, LARGEST_WIDTH, low_included=False, instead="a name")
        self._check_endpoints()

    def _check_endpoints(self) -> None:
        """Check what is named beside the primary."""
        names = [name_average(average) for average in self.averages]
        for setting, listed in {"averages": names, "confirm": self.confirm, "curves": self.curves}.items():
            if len(set(listed)) < len(listed):
                raise SettingError(setting, f"must name each once, not {', '.join(listed)}")
        if self.average is not None and name_average(self.average) in names:
            raise SettingError("averages", f"holds {name_average(self.average)}, with which ablate.average evaluates")
        if self.primary in self.confirm:
            raise SettingError("confirm", f"holds the primary, {self.primary}, which cannot confirm itself")
        for name, quality in self.quality.items():
            if name not in self.curves:
                raise SettingError("quality", f"names {name!r}, which is no curve: add it to ablate.curves")
            check_finite("quality", quality)

    @property
    def all_variants(self) -> dict[str, Sequence[str]]:
        """The bindings of each variant: first those of the design, then the others."""
        return {**self.design.variants, **self.variants}

    @property
    def all_pairs(self) -> list[tuple[str, str]]:
        """The contrasts of two variants: first those of the design, then the others."""
        return [*self.design.pairs, *((variant, against) for variant, against in self.contrasts)]

    def find_setting(self, variant: str) -> str:
        """Return the name of the setting that makes a variant."""
        if variant in self.variants:
            return "ablate.variants"
        return f"ablate.{self.design.setting}"

    def _check_variants(self) -> None:
        # Variants of the design have names already.
        for name in self.variants:
            if name in self.design.variants:
                raise SettingError("variants", f"names {name}, which is a variant of the design: take another name")
        if len(self.all_variants) < 2:
            raise SettingError("variants", f"must name at least two, not {list(self.variants)}")

        # Names of folders, which some file systems compare without regard to case.
        by_lower: dict[str, str] = {}
        for name in self.all_variants:
            setting = "variants" if name in self.variants else self.design.setting
            twin = by_lower.setdefault(name.lower(), name)
            if twin != name:
                raise SettingError(
                    setting, f"names folders: {twin!r} and {name!r} differ in case alone. Rename one of them"
                )
            if not _NAME.fullmatch(name) or name == TRUNK:
                raise SettingError(
                    setting,
                    f"names folders: {name!r} must begin with a letter or digit, go on with these and . - _ +, "
                    f"and not be {TRUNK!r}",
                )
            if len(name) > LONGEST_NAME:
                raise SettingError(
                    setting,
                    f"names folders: {name!r} must have at most {LONGEST_NAME} characters, and has {len(name)}",
                )

    def _check_contrasts(self) -> None:
        # The other way round it is the same question, which would be corrected for twice.
        for pair in self.all_pairs:
            for name in pair:
                self._require_variant("contrasts", name)
            if pair[0] == pair[1] or self.all_pairs.count(pair) > 1:
                raise SettingError("contrasts", f"must compare two different variants, each pair once, not {pair}")
            if pair[::-1] in self.all_pairs:
                raise SettingError(
                    "contrasts", f"holds {pair} and {pair[::-1]}, which are one question: leave out one of them"
                )
        if not self.all_pairs and not self.design.effects:
            raise SettingError("contrasts", "must hold at least one pair (variant, against)")

    def require_enough_seeds(self, exploratory: Sequence[Sequence[str]] = ()) -> None:
        """Refuse a plan whose corrected p-values cannot fall below the level, whatever the runs give.

        Args:
            exploratory: Pairs that were added to the plan after the first start, and are not corrected for.

        Raises:
            SettingError: There are too few seeds.
        """
        # How many contrasts share the error.
        confirmatory = self._count_confirmatory()
        confirmatory -= sum(find_role(pair, self.controls) == "confirmatory" for pair in exploratory)
        if not confirmatory:
            return

        # The smallest p that this number of seeds can give, if all of them agree.
        pairs = len(self.seeds)
        needed = count_pairs_needed(confirmatory)
        if pairs < needed:
            noun = "contrast" if confirmatory == 1 else "contrasts"
            remedy = "Name variants in `controls` to compare them without a verdict"
            if self.design.effects:
                remedy = "Name fewer `effects`: the others are computed without a verdict"
            raise SettingError(
                "seeds",
                f"must be at least {needed} for {confirmatory} confirmatory {noun}, and are {pairs}: with these, the "
                f"corrected p is at least {confirmatory * compute_smallest_p(pairs):.3g}, and never below {ALPHA:g}. "
                f"{remedy}",
            )

    def _list_roles(self) -> list[tuple[Collection[str], str]]:
        """Return the variants and the role of each contrast."""
        roles: list[tuple[Collection[str], str]] = [(pair, find_role(pair, self.controls)) for pair in self.all_pairs]
        for effect in self.design.effects.values():
            roles.append((effect["weights"], find_role(effect["weights"], self.controls, effect["role"])))
        return roles

    def _count_confirmatory(self) -> int:
        return sum(role == "confirmatory" for _, role in self._list_roles())

    def _check_looks(self) -> None:
        # Settings that a plan of a single look does not read must not be bound.
        check_choice("spending", self.spending, SPENDING)
        check_between("futility", self.futility, 0, 1)
        if len(self.looks) < 2:
            defaults = {"spending": SPENDING[0], "futility": FUTILITY}
            for setting, default in defaults.items():
                if getattr(self, setting) != default:
                    raise SettingError(setting, "has no effect without two or more looks: bind ablate.looks too")
        if not self.looks:
            return

        # The looks themselves: growing numbers of pairs, the last of which are all.
        if self.looks[0] < 1 or list(self.looks) != sorted(set(self.looks)):
            raise SettingError(
                "looks", f"must be numbers of pairs, each above the one before it, not {list(self.looks)}"
            )
        if self.looks[-1] != len(self.seeds):
            raise SettingError(
                "looks",
                f"must end with {len(self.seeds)}, the number of seeds, not with {self.looks[-1]}: the last look has "
                "all pairs",
            )

        # Looks decide confirmatory contrasts, and train only runs that a contrast needs.
        confirmatory = self._count_confirmatory()
        if not confirmatory:
            raise SettingError("looks", "needs a confirmatory contrast to decide, and all contrasts have a control")
        for name in self.all_variants:
            if not any(name in names for names, role in self._list_roles() if role != "exploratory"):
                raise SettingError("looks", f"would never train {name}: no contrast needs its runs")
        self._require_enough_pairs_at_looks(confirmatory)

    def _require_enough_pairs_at_looks(self, confirmatory: int) -> None:
        """Refuse a first look that cannot find a difference, whatever the runs give, if one with more pairs could."""

        def compute_error(pairs: int) -> float:
            return spend_on_hypothesis(self.spending, (pairs, len(self.seeds)), confirmatory, 2)[0]

        first = self.looks[0]
        if compute_smallest_p(first) < compute_error(first):
            return

        # The message says how many pairs would do. If all seeds would not, `require_enough_seeds` refuses them.
        needed = first
        while needed <= len(self.seeds) and compute_smallest_p(needed) >= compute_error(needed):
            needed += 1
        if needed > len(self.seeds):
            return
        remedy = f"Begin with {needed} pairs"
        if self.spending != SPENDING[0]:
            remedy += f", or spend more at early looks (ablate.spending = {SPENDING[0]!r})"
        noun = "contrast" if confirmatory == 1 else "contrasts"
        raise SettingError(
            "looks",
            f"begins with {first} pairs, which cannot show a difference: of {confirmatory} confirmatory {noun}, each "
            f"may spend {compute_error(first):.2g} of the error there, and the p of {first} pairs is at least "
            f"{compute_smallest_p(first):.2g}. {remedy}",
        )

    def _require_variant(self, setting: str, name: str) -> None:
        if name not in self.all_variants:
            raise SettingError(
                setting, f"names {name!r}, which is not a variant; the variants are {', '.join(self.all_variants)}"
            )
