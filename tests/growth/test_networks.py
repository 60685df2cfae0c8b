"""Test the growing networks: function preservation, the fade, and initial weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from pggan_kit.errors import PluginError
from pggan_kit.growth.networks import Discriminator, Generator
from pggan_kit.layers.resampling import Area
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import ScheduleSettings, Stage
from pggan_kit.testing import make_stages
from pggan_kit.testing.support import are_equal, copy_weights, draw_noise, perturb
from pggan_kit.testing.tiny_runs import make_tiny_experiment
from pggan_kit.testing.toys import ToyArchitecture
from pggan_plugins.architectures import PGGAN
from pggan_plugins.architectures.layers import EqualizedConv2d
from pggan_plugins.resampling import Nearest

GEOMETRIES: dict[str, Sequence[Any]] = {
    "4-8-16-32": (4, 8, 16, 32),
    "7-14-28": (7, 14, 28),
    "5-15-45": (5, 15, 45),
    "4x6-8x12": ((4, 6), (8, 12)),
}
LATENTS = 16


def make_networks(base: Stage, architecture: Any = None, seed: int = 0) -> tuple[Generator, Discriminator]:
    chosen = architecture or PGGAN(channels={1: 12, 8: 10, 16: 6, 32: 4})
    common = (chosen, Nearest(), Area(), seed)
    return Generator(*common, LATENTS, base), Discriminator(*common, base)


def enlarge(x: Tensor, factor: int) -> Tensor:
    """Enlarge by nearest neighbours: pixel (i, j) shows pixel (i // factor, j // factor)."""
    rows, columns = (torch.arange(size * factor) // factor for size in x.shape[2:])
    return x[:, :, rows][:, :, :, columns]


def reduce(x: Tensor, factor: int) -> Tensor:
    """Reduce to the means of squares."""
    n, c, h, w = x.shape
    return x.view(n, c, h // factor, factor, w // factor, factor).mean((3, 5))


def test_weights_are_those_that_are_there() -> None:
    """They are searched once, and again after growth and the end of a fade."""
    base, grown = make_stages((4, 8))
    for net in make_networks(base):

        def check(net: Any = net) -> int:
            params = net.weights()
            assert [id(one) for one in params] == [id(param) for _, param in net.named_parameters()]
            return len(params)

        before = check()
        net.grow(grown, bridged=True)
        bridged = check()
        net.end_fade()
        assert before < check() < bridged


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [None, torch.tensor(0.5)])
@torch.no_grad()
def test_channels_last_from_the_first_layer_on(channels: int, alpha: Tensor | None) -> None:
    """D's features have the format of its weights from the images on, so that none is copied between layers."""
    chosen = {"architecture": PGGAN(channels=6), "resampling": Nearest()}
    experiment = make_tiny_experiment({**chosen, "schedule": ScheduleSettings((8, 16), 8, 8, 4)})
    state = TrainState(experiment, experiment.schedule.resolve(16, channels, 0), torch.device("cpu"))
    state.grow({"generator": True, "discriminator": True})
    formats: list[bool] = []
    for module in state.discriminator.modules():
        if isinstance(module, EqualizedConv2d):
            module.register_forward_hook(
                lambda module, given, out: formats.append(out.is_contiguous(memory_format=torch.channels_last))
            )
    images = draw_noise(4, channels, 16, 16)
    score = state.discriminator(images, alpha=alpha).score
    assert len(formats) >= 4 and all(formats)
    state.discriminator.channels_last = False
    torch.testing.assert_close(state.discriminator(images, alpha=alpha).score, score)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@torch.no_grad()
def test_growth_preserves_the_function(geometry: str, channels: int) -> None:
    """At alpha 0: G's image is the former one, enlarged; D's scores are the former ones of the reduced image."""
    base, *later = make_stages(GEOMETRIES[geometry], channels)
    generator, discriminator = make_networks(base)
    latents = draw_noise(6, LATENTS)
    zero = torch.zeros(())
    for stage in later:
        perturb(generator, stage.index, 0.3)
        perturb(discriminator, stage.index, 0.3)
        images = draw_noise(6, channels, stage.height, stage.width, seed=stage.index)
        before = enlarge(generator(latents), stage.factor), discriminator(reduce(images, stage.factor)).score
        assert before[0].std() > 0.1 and before[1].std() > 1e-3, "the functions to preserve must not be trivial"
        for net in (generator, discriminator):
            net.grow(stage, bridged=True)
        torch.testing.assert_close(generator(latents, alpha=zero), before[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(discriminator(images, alpha=zero).score, before[1], rtol=1e-5, atol=1e-6)
        for net in (generator, discriminator):
            net.end_fade()


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.9, 1.0])
@torch.no_grad()
def test_the_fade_against_its_formula(alpha: float) -> None:
    """G: lerp(up(old_to_image(f)), new_to_image(block(f))). D: lerp(old_from_image(down(x)), block(new(x)))."""
    first, second = make_stages((4, 8), 3)
    generator, discriminator = (net.double() for net in make_networks(first))
    old_to_image = generator.to_image
    old_from_image = discriminator.from_image
    for net in (generator, discriminator):
        net.grow(second, bridged=True)
        net.double()
        perturb(net)
    latents = draw_noise(4, LATENTS, dtype=torch.float64)
    images = draw_noise(4, 3, 8, 8, dtype=torch.float64)
    share = torch.tensor(alpha)
    features = generator.stem(latents)
    block = generator.blocks["1"](features)
    wanted = (1 - alpha) * enlarge(old_to_image(features), 2) + alpha * generator.to_image(block)
    torch.testing.assert_close(generator(latents, alpha=share), wanted, rtol=1e-6, atol=1e-7)
    new = discriminator.blocks["1"](discriminator.from_image(images))
    mixed = (1 - alpha) * old_from_image(reduce(images, 2)) + alpha * new
    wanted = discriminator.head(mixed, None).score
    torch.testing.assert_close(discriminator(images, alpha=share).score, wanted, rtol=1e-6, atol=1e-7)


@torch.no_grad()
def test_alpha_1_is_the_network_without_its_bridge() -> None:
    stages = make_stages((4, 8, 16), 3)
    latents = draw_noise(4, LATENTS)
    images = draw_noise(4, 3, 16, 16)
    for net, given in zip(make_networks(stages[0]), (latents, images), strict=True):
        net.grow(stages[1], bridged=False)
        net.grow(stages[2], bridged=True)
        perturb(net)
        faded = net(given, alpha=torch.ones(()))
        plain = net(given)
        net.end_fade()
        assert are_equal(faded, plain)
        assert are_equal(net(given), plain)


def test_the_end_of_a_fade_removes_the_old_path_and_nothing_else() -> None:
    stages = make_stages((4, 8), 3)
    for bridged, plain in zip(make_networks(stages[0]), make_networks(stages[0]), strict=True):
        old = {name for name in bridged.state_dict() if name.startswith(("to_image", "from_image"))}
        bridged.grow(stages[1], bridged=True)
        plain.grow(stages[1], bridged=False)
        own = set(bridged.state_dict()) - set(plain.state_dict())
        assert {name.split(".")[0] for name in own} == {"bridge"}
        assert len(own) == len(old)
        bridged.end_fade()
        assert are_equal(copy_weights(bridged), copy_weights(plain))
        bridged.end_fade()


def test_growing_keeps_what_was_learnt() -> None:
    stages = make_stages((4, 8, 16), 1)
    for net in make_networks(stages[0]):
        perturb(net)
        before = copy_weights(net)
        net.grow(stages[1], bridged=True)
        after = net.state_dict()
        for name, value in before.items():
            kept = f"bridge.old_{name}" if name.startswith(("to_image", "from_image")) else name
            assert torch.equal(after[kept], value), name
        net.end_fade()
        before = copy_weights(net)
        net.grow(stages[2], bridged=False)
        after = net.state_dict()
        for name, value in before.items():
            if not name.startswith(("to_image", "from_image")):
                assert torch.equal(after[name], value), name


def test_initial_weights_depend_on_seed_network_piece_and_stage_alone() -> None:
    """So variants share them, a hard switch and a soft one, whatever else was drawn in between."""
    stages = make_stages((4, 8, 16), 1)
    grown = []
    for bridged, drawn in ((True, 0), (False, 7)):
        pair = make_networks(stages[0])
        for stage in stages[1:]:
            for net in pair:
                torch.randn(drawn)
                net.grow(stage, bridged)
                net.end_fade()
        grown.append([copy_weights(net) for net in pair])
    assert are_equal(*grown)
    other = copy_weights(make_networks(stages[0], seed=1)[0])
    assert not torch.equal(other["stem.conv.weight"], grown[0][0]["stem.conv.weight"])
    firsts = [float(value.flatten()[0]) for name, value in grown[0][0].items() if name.endswith("weight")]
    assert len(set(firsts)) == len(firsts), "no two pieces are alike"


def test_only_the_current_stages_weights_get_gradients_through_the_fade() -> None:
    """In mid-fade both paths learn; without alpha the bridge does not."""
    stages = make_stages((4, 8), 1)
    generator, discriminator = make_networks(stages[0], ToyArchitecture())
    for net, given in ((generator, draw_noise(4, LATENTS)), (discriminator, draw_noise(4, 1, 8, 8))):
        net.grow(stages[1], bridged=True)
        for alpha, expected in ((torch.tensor(0.5), True), (None, False)):
            net.zero_grad(set_to_none=True)
            output = net(given, alpha=alpha)
            (output if isinstance(output, Tensor) else output.score).sum().backward()
            for name, param in net.named_parameters():
                assert (param.grad is not None) == (expected or not name.startswith("bridge")), name


def test_features_of_an_architectures_own_pass_through_untouched() -> None:
    """The core reads images and scores alone: what blocks hand on may be anything."""

    class Wrapped(ToyArchitecture):
        def generator_stem(self, latent_size: int, stage: Stage) -> Any:
            return Wrap(super().generator_stem(latent_size, stage))

        def generator_block(self, previous: Stage, stage: Stage, resampling: Any) -> Any:
            return Rewrap(super().generator_block(previous, stage, resampling))

        def to_image(self, stage: Stage) -> Any:
            return Unwrap(super().to_image(stage))

    class Wrap(torch.nn.Sequential):
        def forward(self, latents: Tensor, labels: Any = None) -> dict[str, Any]:
            return {"maps": self[0](latents, labels), "latents": latents}

    class Rewrap(torch.nn.Sequential):
        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            return {**features, "maps": self[0](features["maps"])}

    class Unwrap(torch.nn.Sequential):
        def forward(self, features: dict[str, Any]) -> Tensor:
            assert features["latents"].shape == (4, LATENTS)
            return self[0](features["maps"])

    # Both paths of a fade end in images.
    stages = make_stages((4, 8), 1)
    generator, _ = make_networks(stages[0], Wrapped())
    generator.grow(stages[1], bridged=True)
    assert generator(draw_noise(4, LATENTS), alpha=torch.tensor(0.5)).shape == (4, 1, 8, 8)


@torch.no_grad()
def test_an_architecture_finishes_images_behind_the_blend() -> None:
    """The image of each stage is finished, too."""

    class Finishing(ToyArchitecture):
        images_at_each_stage = True

        def finish_images(self, images: Tensor) -> Tensor:
            return images + 10

    stages = make_stages((4, 8), 1)
    plain, finished = (make_networks(stages[0], kind)[0] for kind in (ToyArchitecture(), Finishing()))
    latents = draw_noise(4, LATENTS)
    assert torch.equal(finished(latents), plain(latents) + 10)
    for net in (plain, finished):
        net.grow(stages[1], bridged=True)
    assert torch.equal(finished(latents, alpha=torch.tensor(0.3)), plain(latents, alpha=torch.tensor(0.3)) + 10)
    (features,) = plain.synthesise(latents, record=True).features[-1:]
    assert torch.equal(finished.list_stage_images((features,))[0], plain.to_image(features) + 10)


class Maps(NamedTuple):
    """Features of D with two maps, and something that is no map."""

    maps: Tensor
    means: Tensor
    rows: Tensor
    count: int


class SplitFeatures(torch.nn.Sequential):
    def forward(self, *inputs: Any) -> Any:
        features = self[0](*inputs)
        rows = torch.arange(len(features))
        return Maps(features, features.mean((2, 3)), rows, len(features))


class JoinFeatures(torch.nn.Sequential):
    def forward(self, features: Maps, *labels: Any) -> Any:
        assert features.rows.tolist() == list(range(features.count))
        return self[0](features.maps + features.means[:, :, None, None], *labels)


class JoinedBlock(torch.nn.Sequential):
    def forward(self, features: Maps) -> Any:
        return self[1](self[0](features))


class SplitArchitecture(ToyArchitecture):
    """The features of D are a NamedTuple."""

    def from_image(self, stage: Stage) -> Any:
        return SplitFeatures(super().from_image(stage))

    def discriminator_block(self, stage: Stage, previous: Stage, resampling: Any) -> Any:
        return JoinedBlock(JoinFeatures(super().discriminator_block(stage, previous, resampling)), _Split())

    def discriminator_head(self, stage: Stage) -> Any:
        return JoinFeatures(super().discriminator_head(stage))


class _Split(torch.nn.Module):
    def forward(self, features: Tensor) -> Any:
        return Maps(features, features.mean((2, 3)), torch.arange(len(features)), len(features))


def test_a_fade_blends_the_fields_of_a_named_tuple_in_d_one_by_one() -> None:
    stages = make_stages((4, 8), 1)
    _, net = make_networks(stages[0], SplitArchitecture())
    net.grow(stages[1], bridged=True)
    images = draw_noise(4, 1, 8, 8)
    alpha = torch.tensor(0.3)

    new = net.blocks["1"](net.from_image(images))
    old = net.bridge(images, None, None)  # type: ignore[misc]
    blended = [0.7 * one.double() + 0.3 * other.double() for one, other in zip(old[:2], new[:2], strict=True)]
    expected = net.head(Maps(blended[0].float(), blended[1].float(), new.rows, new.count))
    torch.testing.assert_close(net(images, alpha=alpha).score, expected.score)
    assert not torch.equal(net(images, alpha=alpha).score, net(images).score)


@pytest.mark.parametrize("change", [lambda maps: maps.maps, lambda maps: maps._asdict(), list])
def test_paths_that_pass_on_different_things_cannot_be_blended(change: Any) -> None:
    class Other(SplitArchitecture):
        def discriminator_bridge(self, previous: Stage, stage: Stage, resampling: Any, old_from_image: Any) -> Any:
            bridge = super().discriminator_bridge(previous, stage, resampling, old_from_image)
            bridge.register_forward_hook(lambda module, inputs, output: change(output))
            return bridge

    stages = make_stages((4, 8), 1)
    _, net = make_networks(stages[0], Other())
    net.grow(stages[1], bridged=True)
    with pytest.raises(TypeError, match="and the new one a Maps: both must return a tensor, or one NamedTuple"):
        net(draw_noise(4, 1, 8, 8), alpha=torch.tensor(0.3))


class Kept(torch.nn.Module):
    """A layer beside others that an attribute holds, whichever way."""

    def __init__(self, layer: torch.nn.Module, kept: Any) -> None:
        super().__init__()
        self.layer = layer
        self.kept = kept

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)
        return result


def keep(net: str, kept: Any) -> Any:
    """Return an architecture of which one network's layer at the image keeps something more."""

    class Keeps(ToyArchitecture):
        def to_image(self, stage: Stage) -> torch.nn.Module:
            layer = super().to_image(stage)
            return Kept(layer, kept(layer)) if net == "generator" else layer

        def from_image(self, stage: Stage) -> torch.nn.Module:
            layer = super().from_image(stage)
            return Kept(layer, kept(layer)) if net == "discriminator" else layer

    return Keeps()


@pytest.mark.parametrize("net", ["generator", "discriminator"])
@pytest.mark.parametrize(
    ("make_kept", "says"),
    [
        (lambda: [torch.nn.Linear(1, 1)], "is a plain list: use nn.ModuleList"),
        (lambda: ({"a": [torch.nn.BatchNorm2d(1, affine=False)]},), "is a plain tuple: use nn.ModuleList"),
        (lambda: {"a": torch.nn.Linear(1, 1)}, "is a plain dict: use nn.ModuleDict"),
        (lambda: [torch.nn.Parameter(torch.ones(1))], "is a plain list: use nn.ParameterList"),
        (lambda: {"a": torch.nn.Parameter(torch.ones(1))}, "is a plain dict: use nn.ParameterDict"),
    ],
)
def test_layers_that_no_network_knows_are_refused_as_it_takes_or_grows_them(
    net: str, make_kept: Any, says: str
) -> None:
    base, grown = make_stages((4, 8))
    name = {"generator": "to_image", "discriminator": "from_image"}[net]
    with pytest.raises(PluginError, match=rf"Keeps: in the {net}'s {name} of 4x4, kept {says}; else its weights never"):
        make_networks(base, keep(net, lambda layer: make_kept()))

    # Those of a later stage, too.
    later: list[Any] = []
    nets = make_networks(base, keep(net, lambda layer: list(later)))
    later.append(torch.nn.Linear(1, 1))
    with pytest.raises(PluginError, match=rf"in the {net}'s {name} of 8x8, kept is a plain list: use nn\.ModuleList"):
        nets[net == "discriminator"].grow(grown, bridged=True)


@pytest.mark.parametrize(
    "kept",
    [
        lambda layer: [layer],
        lambda layer: list(layer.parameters()),
        lambda layer: torch.nn.ModuleList([torch.nn.Linear(1, 1)]),
        lambda layer: [torch.nn.ReLU(), torch.nn.Upsample(scale_factor=2), torch.ones(1), None, "text"],
    ],
)
def test_a_list_may_hold_what_the_network_knows_and_what_has_no_weights(kept: Any) -> None:
    base, grown = make_stages((4, 8))
    for index, net in enumerate(("generator", "discriminator")):
        make_networks(base, keep(net, kept))[index].grow(grown, bridged=True)
