"""Check that what varies between the trials of a variant has an effect on what they give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pggan_kit.ablation.effects import (
    DATASETS,
    differ_in_training,
    list_effective_differences,
    list_measuring_differences,
)
from pggan_kit.ablation.settings import Ablation
from pggan_kit.ablation.sources import EVERYTHING, SEED
from pggan_kit.api.prepare import Prepared, prepare
from pggan_kit.config import gin_files
from pggan_kit.errors import ConfigError, UserError
from pggan_kit.plugin_host.plugin_files import RecordedFile


def require_sources(
    settings: Ablation, name: str, base: Path, bindings: Sequence[str], plugins: Sequence[RecordedFile]
) -> None:
    """Check that a variant has the settings that vary between its trials, and that each makes a difference.

    Args:
        settings: The ablation's settings.
        name: The variant.
        base: Gin file of the experiment.
        bindings: Its bindings, those of all variants included.
        plugins: The plan's plugin files.

    Raises:
        UserError: It has not, or one makes none; the message names the variant.
    """
    # Every experiment has the seed of everything, and building it again takes time.
    if settings.resample == EVERYTHING:
        return
    seed = settings.seeds[0]
    other_seed = settings.seeds[1] if len(settings.seeds) > 1 else seed + 1

    def build(seeds: Sequence[int], evaluation: Sequence[str] = ()) -> Prepared:
        """Return the experiment of a trial whose sources have these seeds."""
        sources = [binding.replace(SEED, str(own)) for binding, own in zip(texts, seeds, strict=True)]
        try:
            prepared = prepare(base, [*bindings, *sources, *evaluation], plugins)
            prepared.schedule()
        except UserError as error:
            raise type(error)(f"ablate.resample, in variant {name}: {error}") from error
        return prepared

    # Change the seed of one source at a time: something has to differ.
    texts = list(settings.resample.values())
    first_seeds = [seed] * len(texts)
    first = build(first_seeds)
    for place, (source, text) in enumerate(settings.resample.items()):
        seeds = [*first_seeds[:place], other_seed, *first_seeds[place + 1 :]]
        other = build(seeds)
        changes_curves = bool(settings.curves) and bool(list_measuring_differences(first, other))
        if changes_curves or differ_in_training(first, other):
            continue

        # What is measured in the end may differ, unless the plan's own evaluation takes it back.
        evaluated = [build(each, settings.evaluation) for each in (first_seeds, seeds)]
        if not list_effective_differences(*evaluated):
            raise ConfigError(
                f"ablate.resample: {source!r} ({text}) has no effect in variant {name}: "
                f"{_explain(text, first, other, (seed, other_seed))}"
            )


def _explain(text: str, one: Prepared, other: Prepared, seeds: tuple[int, int]) -> str:
    """Return why a source has no effect, and what it would need."""
    own_settings = one.built.settings
    other_settings = other.built.settings
    differing = [place for place in own_settings if own_settings[place] != other_settings.get(place)]
    if any(place in DATASETS for place in differing):
        return (
            f"the data are the same with seed {seeds[0]} and with seed {seeds[1]}. It needs settings of the data set "
            "on which its seed acts, such as another split"
        )
    names = [binding.name for binding in gin_files.parse_overrides([text.replace(SEED, str(seeds[0]))])]
    return (
        f"{', '.join(names)} changes nothing of what a trial trains, or of what is measured in the end. It needs a "
        f"setting that is a seed, as 'train.network_seed = {SEED}'"
    )
