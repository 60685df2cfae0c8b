"""What the page of `explore` draws: any place of the growth, the way between seeds, classes, styles, arrangements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result

from pggan_kit import ConfigError, RunError, SettingError, load_generator
from pggan_kit.api.explorer import END, FADE, GROWTH, WAY, Explorer, View, open_explorer
from pggan_kit.api.sample import draw
from pggan_kit.api.strip import draw_strip, write_strip
from pggan_kit.layers.slerp import interpolate_directions
from pggan_kit.pictures import to_uint8
from pggan_kit.runs.generators import FADING, StyleMixing, TrainedGenerator
from pggan_kit.system.seeding import fork_random_numbers, torch_generator

Cli = Callable[..., Result]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, stub: str) -> Path:
    """Return a run that faded twice, of networks with styles, labels and noise."""
    from conftest import TINY
    from helpers.gin_text import bind_again

    from pggan_kit import train

    lines = (
        "datasets.Stub.classes = 3",
        "architectures.StyleGAN2.conditioning = 'projection'",
        "architectures.StyleGAN2.style_size = 6",
        "architectures.StyleGAN2.mapping_layers = 2",
    )
    folder = tmp_path_factory.mktemp("grown")
    (folder / "tiny.gin").write_text(bind_again(TINY.replace("PGGAN", "StyleGAN2"), lines))
    train(folder / "tiny.gin", run_dir=folder / "run", plugins=[stub])
    return folder / "run"


@pytest.fixture(scope="module")
def explorer(grown: Path) -> Explorer:
    return open_explorer(grown)


def test_every_place_of_the_growth_is_that_of_sample(explorer: Explorer, grown: Path) -> None:
    """The same latents at each stage's end and at any alpha of its fade, with the weights that each had."""
    assert [place.size for place in explorer.places.values()] == ["4x4", "8x8", "16x16"]
    assert [sorted(place.generators) for place in explorer.places.values()] == [[END], [END, FADE], [END, FADE]]
    for stage, place in explorer.places.items():
        view = View(stage=stage, moment=END, seed=3, count=5)
        np.testing.assert_array_equal(explorer.draw_images(view), draw(load_generator(grown, stage=stage), 5, 3))
        if stage:
            fading = load_generator(grown, stage=stage, checkpoint=FADING)
            for alpha in (0.0, 0.3, 1.0):
                view = View(stage=stage, moment=FADE, alpha=alpha, seed=3, count=5)
                np.testing.assert_array_equal(explorer.draw_images(view), draw(fading, 5, 3, alpha=alpha))
                clock = f"weights at {16 * stage:,} images"
                assert explorer.describe(view) == f"{place.size}, stage {stage} {FADE}, alpha {alpha:.2f}, {clock}"

    # What was not kept is said, and the other weights are shown.
    words = explorer.describe(View(stage=0, moment=FADE))
    assert words == f"4x4, stage 0 {END}, weights at 8 images, since no checkpoint {FADE} was kept"


def draw_latents(generator: TrainedGenerator, latents: torch.Tensor, **settings: Any) -> np.ndarray:
    """Return the images of latents whose classes take turns, with the noise of seed 3."""
    labels = torch.arange(len(latents)) % generator.classes
    with fork_random_numbers(seed=3):
        return to_uint8(generator(latents, labels, **settings))


def test_the_way_leads_from_one_seed_to_the_other(explorer: Explorer) -> None:
    """On a great circle, with the noise of the first seed."""
    generator = explorer.places[2].generators[END]
    first, second = (torch.randn(4, 8, generator=torch_generator(seed, "sample")) for seed in (3, 8))
    directions = interpolate_directions(first / first.norm(dim=1)[:, None], second / second.norm(dim=1)[:, None], 0.25)
    lengths = 0.75 * first.norm(dim=1) + 0.25 * second.norm(dim=1)
    for way, latents in ((0.0, first), (0.25, lengths[:, None] * directions), (1.0, second)):
        images = explorer.draw_images(View(stage=2, seed=3, second_seed=8, way=way, count=4))
        np.testing.assert_array_equal(images, draw_latents(generator, latents))


def test_classes_truncation_and_mixed_styles(explorer: Explorer) -> None:
    view = View(stage=2, seed=3, second_seed=8, count=4)
    generator = explorer.places[2].generators[END]
    assert (explorer.classes, explorer.class_names, explorer.style_layers) == (3, ["0", "1", "2"], 6)
    assert explorer.can_truncate
    turns = explorer.draw_images(view)
    one = explorer.draw_images(replace(view, label=2))
    np.testing.assert_array_equal(one[2], turns[2])
    assert (one[0] != turns[0]).any()

    first, second = (torch.randn(4, 8, generator=torch_generator(seed, "sample")) for seed in (3, 8))
    truncated = explorer.draw_images(replace(view, truncation=0.5))
    np.testing.assert_array_equal(truncated, draw_latents(generator, first, truncation=0.5))

    # From the first layer on all is the second seed's; from behind the last one on nothing is.
    mixed = [explorer.draw_images(replace(view, first_mixed_layer=layer)) for layer in (0, 3, 6)]
    np.testing.assert_array_equal(mixed[0], draw_latents(generator, second))
    np.testing.assert_array_equal(mixed[1], draw_latents(generator, first, mixing=StyleMixing(second, 3)))
    np.testing.assert_array_equal(mixed[2], turns)


def test_arrangements(explorer: Explorer, grown: Path, tmp_path: Path) -> None:
    """A grid has one size at all stages; the way has a row for each latent; all stages are the strip of the run."""
    view = View(seed=3, count=4)
    sizes = {explorer.draw(replace(view, stage=stage)).size for stage in explorer.places}
    assert sizes == {(2 * 338 + 2, 2 * 338 + 2)}

    way = explorer.draw(replace(view, stage=2, shown=WAY))
    assert way.size == (9 * (64 + 2) + 2, 4 * (64 + 2) + 2)
    last_cell = np.asarray(way)[2:66, 8 * 66 + 2 : 9 * 66]
    last = explorer.draw_images(replace(view, stage=2, way=1.0))[0, ..., 0]
    np.testing.assert_array_equal(last_cell, last.repeat(4, 0).repeat(4, 1))

    strip = draw_strip(write_strip(grown, tmp_path / "a.png", count=4, seed=3, steps=3), 84)
    assert np.array_equal(np.asarray(explorer.draw(replace(view, shown=GROWTH))), np.asarray(strip))
    assert "at all stages" in explorer.describe(replace(view, shown=GROWTH))
    many = explorer.draw(replace(view, count=20, shown=WAY))
    assert many.height == 6 * (64 + 2) + 2, "as many rows as a picture has"


def test_what_a_run_has_not_is_said(explorer: Explorer, train: Any, cli: Cli) -> None:
    with pytest.raises(RunError, match=r"no checkpoint of stage 7 was kept; the stages that have one: 0 \(4x4\), 1"):
        explorer.draw(View(stage=7))
    with pytest.raises(RunError, match="there is no class 3: the generator has 3 classes"):
        explorer.draw(View(label=3))

    # A run without styles and classes, whose stages switched at once.
    train("train.switch = @switches.Hard()", "schedule.sizes = (4, 8)", run_dir="run")
    plain = open_explorer(Path("run"))
    assert not plain.can_truncate and plain.style_layers == 0 and plain.class_names == []
    assert [list(place.generators) for place in plain.places.values()] == [[END], [END]]
    with pytest.raises(ConfigError, match="no styles that could be mixed"):
        plain.draw(View(first_mixed_layer=1))
    with pytest.raises(ConfigError, match="truncation shortens latents"):
        plain.draw(View(truncation=0.5))
    with pytest.raises(RunError, match="the generator has no classes"):
        plain.draw(View(label=0))

    # A file has one place of the growth.
    assert cli("export", "run", "--to", "safetensors", "--out", "a.safetensors").exit_code == 0
    file = open_explorer(Path("a.safetensors"))
    assert [(place.stage, place.size, list(place.generators)) for place in file.places.values()] == [(1, "8x8", [END])]
    view = View(stage=1, count=2)
    np.testing.assert_array_equal(file.draw_images(view), plain.draw_images(view))
    with pytest.raises(RunError, match="has one generator: leave average out"):
        open_explorer(Path("a.safetensors"), average="half_life")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("stage", -1),
        ("moment", "later"),
        ("alpha", 1.5),
        ("seed", -1),
        ("seed", None),
        ("second_seed", 0.5),
        ("way", -0.1),
        ("count", 0),
        ("count", 65),
        ("label", -1),
        ("truncation", float("nan")),
        ("first_mixed_layer", -1),
        ("shown", "a film"),
    ],
)
def test_a_wrong_value_is_named(name: str, wrong: Any) -> None:
    with pytest.raises(SettingError, match=f"^{name} must be"):
        View(**{name: wrong})


def test_mixed_styles_are_those_of_the_formula(grown: Path) -> None:
    generator = load_generator(grown)
    first, second = torch.randn(2, 3, 8)
    labels = torch.tensor([0, 1, 2])
    a = generator.generator.map_latents(first, labels)
    b = generator.generator.map_latents(second, labels)
    assert a is not None and b is not None
    wanted = torch.stack([(a if layer < 2 else b)[:, layer] for layer in range(6)], 1)
    with fork_random_numbers(seed=0):
        images = generator(first, labels, mixing=StyleMixing(second, 2))
    with fork_random_numbers(seed=0):
        torch.testing.assert_close(images, generator.generator.synthesise(first, labels, styles=wanted).images)
    with pytest.raises(SettingError, match="first_layer must be"):
        generator(first, labels, mixing=StyleMixing(second, -1))
