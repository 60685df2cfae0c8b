"""Check the values that answer an ablation's question: its primary, what confirms it, its averages and its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pggan_kit.ablation.endpoints import list_endpoint_quantities
from pggan_kit.ablation.settings import Ablation
from pggan_kit.api.prepare import Prepared
from pggan_kit.components import find_quantity
from pggan_kit.errors import ConfigError
from pggan_kit.growth.averages import PowerAverage, list_names


def require_averages(settings: Ablation, experiments: Mapping[str, Prepared]) -> None:
    """Check that each variant has the averages that are evaluated, or power functions of which they can be made.

    Raises:
        ConfigError: A variant has not; the message names it. Or an average is evaluated twice.
    """
    # All averages that are evaluated, with the setting that names them.
    given = [("average", settings.average), *(("averages", average) for average in settings.averages)]
    for variant, prepared in experiments.items():
        averages = prepared.built.experiment.averages
        names = list_names(averages)
        has_power_functions = any(isinstance(each, PowerAverage) for each in averages)
        for setting, average in given:
            if isinstance(average, str) and average not in names:
                raise ConfigError(f"ablate.{setting} is {average!r}, and variant {variant} has {', '.join(names)}")
            if isinstance(average, (int, float)) and not has_power_functions:
                raise ConfigError(
                    f"ablate.{setting} is the width {average:g}, and variant {variant} has no power functions, of "
                    "which it could be made: add @averages.PowerFunction() to train.averages"
                )

        # Without `ablate.average` the first one is evaluated.
        if settings.average is None and names[0] in settings.averages:
            raise ConfigError(
                f"ablate.averages holds {names[0]}, which is the first of variant {variant}: without ablate.average, "
                "this is the one that it is evaluated with anyway"
            )


def require_same_end(settings: Ablation, experiments: Mapping[str, Prepared]) -> None:
    """Check that the variants of each contrast end at one size.

    Raises:
        ConfigError: They do not; the message names two.
    """
    ends = {name: prepared.schedule().list_planned_stages()[-1].size for name, prepared in experiments.items()}
    effects = [effect["weights"] for effect in settings.design.effects.values()]
    for first, *others in [*settings.all_pairs, *effects]:
        for other in others:
            if ends[other] != ends[first]:
                raise ConfigError(
                    f"{settings.find_setting(other)}: {other} ends at {ends[other]}, and {first}, which it is "
                    f"compared with, at {ends[first]}: values of images of different sizes cannot be compared"
                )


def find_endpoints(settings: Ablation, experiments: Mapping[str, Prepared]) -> dict[str, dict[str, str]]:
    """Return `direction` and `scale` of the endpoints of curves.

    Raises:
        ConfigError: A variant does not measure such a value at its ticks, or a quality has no logarithm.
    """
    stated: dict[str, dict[str, str]] = {}
    sizes: dict[str, None] = {}
    for variant, prepared in experiments.items():
        quantities = prepared.built.experiment.list_quantities()
        for name in settings.curves:
            if name not in quantities:
                raise ConfigError(
                    f"ablate.curves names {name!r}, and variant {variant} measures "
                    f"{', '.join(quantities) or 'nothing'} at its ticks: bind train.metrics in ablate.bindings"
                )
            stated[name] = {"direction": quantities[name].direction, "scale": quantities[name].scale}
        # A stage without images has no curve.
        sizes |= {stage.size: None for stage in prepared.schedule().stages if stage.budget > 0}

    for name, quality in settings.quality.items():
        if stated[name]["scale"] == "log" and quality <= 0:
            raise ConfigError(f"ablate.quality of {name} must be above 0, where it has a logarithm, and is {quality:g}")
    return list_endpoint_quantities(settings.curves, settings.quality, stated, sizes)


def _list_answers(settings: Ablation) -> list[tuple[str, str]]:
    """Return the values that answer, each with the setting that names it."""
    return [("primary", settings.primary), *(("confirm", name) for name in settings.confirm)]


def require_answers(settings: Ablation, size: str, of_images: Sequence[str], others: Sequence[str]) -> None:
    """Check that the values that answer are given.

    Args:
        settings: The ablation's settings.
        size: Size of the last stage.
        of_images: Names of the values of metrics of images.
        others: Names of the values of metrics of runs, and of the endpoints of curves.

    Raises:
        ConfigError: One is not given, or does not depend on the average although there are several.
    """
    names = [*of_images, *others]
    for setting, name in _list_answers(settings):
        if name not in names:
            raise ConfigError(
                f"ablate.{setting} is {name!r}, and the metrics at {size} give {', '.join(names) or 'nothing'}: bind "
                "train.metrics in ablate.evaluation"
            )
        if settings.averages and name not in of_images:
            raise ConfigError(
                f"ablate.averages has no use for ablate.{setting}, {name!r}: it is no value of the last generator "
                "alone, whose average can be chosen"
            )


def complete_quantities(
    settings: Ablation, quantities: Mapping[str, dict[str, str]], endpoints: Mapping[str, dict[str, str]]
) -> dict[str, dict[str, str]]:
    """Return `direction` and `scale` of each value of metrics and of each endpoint.

    Raises:
        ConfigError: A metric and a curve give values of one name, or the values that answer are not compared alike.
    """
    for name in endpoints:
        if name in quantities:
            raise ConfigError(f"ablate.curves: a metric of ablate.evaluation gives {name} too; give it a `suffix`")
    every_quantity = {**quantities, **endpoints}

    # A margin is of one scale, so all values that decide need the same.
    scales = {}
    for setting, name in _list_answers(settings):
        quantity = find_quantity(every_quantity, name)
        if quantity is None:
            raise ConfigError(
                f"ablate.{setting} is {name!r}, and its metric states no direction and scale for it: add it to the "
                "metric's `quantities`"
            )
        scales[name] = quantity["scale"]
        if scales[name] != scales[settings.primary]:
            raise ConfigError(
                f"ablate.confirm is {name!r}, which is compared on the scale {scales[name]!r}, and the primary, "
                f"{settings.primary}, on {scales[settings.primary]!r}: a margin cannot hold for both"
            )
    return every_quantity
