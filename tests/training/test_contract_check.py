"""A part that returns nonsense is named at the first step, also where no suite runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.paths import STUB_PLUGIN
from torch import Tensor, nn

import pggan_kit
from pggan_kit import Component, ConfigError, PluginError, TrainingError, hookimpl
from pggan_kit.testing.toys import ToyArchitecture, ToyLoss, ToyUpdate

LOSSES: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "a float": (lambda score: 1.0, "returned a float, and must return a dict of 0-dim tensors by name"),
    "a tensor": (lambda score: score.mean(), "returned a Tensor, and must return a dict"),
    "nothing": (lambda score: None, "returned a NoneType, and must return a dict"),
    "no terms": (lambda score: {}, "returned an empty dict, and must return a dict"),
    "an unreduced term": (lambda score: {"x": score}, r"returned a tensor \(4,\) as the term 'x', which must be 0-dim"),
    "a term that is a float": (lambda score: {"x": 1.0}, "returned a float as the term 'x', which must be a 0-dim"),
    "a term with a space": (lambda score: {"a b": score.mean()}, "returned the term 'a b', whose name is no part of a"),
    "a term without a name": (lambda score: {"": score.mean()}, "returned the term '', whose name is no part of a tag"),
    "a detached term": (lambda score: {"x": score.mean().detach()}, "returned terms without gradients"),
}


def make_loss(side: str, answer: Callable[[Tensor], Any]) -> type:
    """Return the class of a loss, one side of which answers with what a function makes of the fakes' scores."""

    class Mine(ToyLoss):
        pass

    def discriminator(self: Any, real: Any, fake: Any) -> Any:
        return answer(fake.score)

    def generator(self: Any, fake: Any, real: Any) -> Any:
        return answer(fake.score)

    setattr(Mine, side, {"discriminator": discriminator, "generator": generator}[side])
    return Mine


@pytest.mark.parametrize("side", ["discriminator", "generator"])
@pytest.mark.parametrize("case", LOSSES)
def test_a_loss_without_terms_is_named(case: str, side: str, train: Callable[..., Any]) -> None:
    answer, complaint = LOSSES[case]
    mine = Component("losses", "Mine", make_loss(side, answer))
    with pytest.raises(PluginError, match=rf"^train\.loss \(losses\.Mine\): {side}\(\) {complaint}"):
        train("train.loss = @losses.Mine()", plugins=(mine,))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_loss_that_reads_reals_without_saying_so_is_named(compiled: bool, train: Callable[..., Any]) -> None:
    class Mine(ToyLoss):
        def generator(self, fake: Any, real: Any) -> dict[str, Tensor]:
            return {"x": (real.score - fake.score).mean()}

    lines = ["train.loss = @losses.Mine()", f"train.compile = '{'auto' if compiled else 'never'}'"]
    text = (
        r"^train\.loss \(losses\.Mine\): generator\(\) reads the scores of reals.*AttributeError.*set needs_real = True"
    )
    with pytest.raises(PluginError, match=text):
        train(*lines, plugins=(Component("losses", "Mine", Mine),))


@pytest.mark.parametrize(
    ("answer", "given"), [(lambda score: score, r"a tensor \(4,\)"), (lambda score: 0.5, "a float")]
)
def test_a_penalty_that_is_no_number_is_named(
    answer: Callable[[Tensor], Any], given: str, train: Callable[..., Any]
) -> None:
    class Odd:
        weight = 1.0
        every = 1

        def __call__(self, critic: Any, real: Any, fake: Any, real_scores: Any, fake_scores: Any, mix: Any) -> Any:
            return answer(real_scores.score)

    lines = ["train.loss = @losses.Hinge()", "losses.Hinge.penalties = [@penalties.R1(), @penalties.Odd()]"]
    text = rf"^train\.loss\.penalties\.1 \(penalties\.Odd\): the penalty returned {given}, and must return a 0-dim"
    with pytest.raises(PluginError, match=text):
        train(*lines, plugins=(Component("penalties", "Odd", Odd),))


class Change(nn.Module):
    """A module whose output a function changes."""

    def __init__(self, module: nn.Module, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self.module = module
        self.change = change

    def forward(self, *inputs: Any) -> Any:
        return self.change(self.module(*inputs))


PIECES: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "images of another size": (
        "to_image",
        lambda x: x[:, :, 1:],
        r"made a tensor \(4, 1, 3, 4\), and must make images",
    ),
    "scores that are a tensor": (
        "discriminator_head",
        lambda s: s.score,
        "head returned a Tensor, and must",
    ),
    "scores in a column": (
        "discriminator_head",
        lambda s: s._replace(score=s.score[:, None]),
        r"head returned scores \(4, 1\)",
    ),
}


@pytest.mark.parametrize("case", PIECES)
def test_an_architecture_whose_networks_return_something_else_is_named(case: str, tiny: Callable[..., str]) -> None:
    piece, change, complaint = PIECES[case]

    class Mine(ToyArchitecture):
        pass

    def make(self: Any, *args: Any) -> nn.Module:
        return Change(getattr(ToyArchitecture, piece)(self, *args), change)

    setattr(Mine, piece, make)
    config = tiny("train.architecture = @architectures.Mine()")
    Path(config).write_text(Path(config).read_text().replace("architectures.PGGAN.channels = 4", ""))
    plugins = [str(STUB_PLUGIN), Component("architectures", "Mine", Mine)]
    with pytest.raises(PluginError, match=rf"^train\.architecture \(architectures\.Mine\): .*{complaint}"):
        pggan_kit.train(config, plugins=plugins)


UPDATES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "nothing": (lambda report: None, "returned a NoneType, and must return a dict of tensors by tag"),
    "floats": (lambda report: {"Loss/x": 1.0}, "returned a float under 'Loss/x'"),
    "a plain name": (
        lambda report: {"images": torch.ones(())},
        "returned the tag 'images', which is not of the form Gr",
    ),
    "a number for a name": (
        lambda report: {3: torch.ones(())},
        "returned the tag 3, which is not of the form Group/na",
    ),
    "the alpha of the core": (
        lambda report: {"Progress/alpha": torch.ones(())},
        "returned the tag 'Progress/alpha', which is in a group of the core: choose another, such as Loss",
    ),
    "a metric": (lambda report: {"Metrics/FID": torch.ones(())}, "returned the tag 'Metrics/FID', which is in a group"),
    "a matrix": (lambda report: {"Loss/x": torch.ones(2, 2)}, r"returned a tensor \(2, 2\) under 'Loss/x'"),
}


@pytest.mark.parametrize("case", UPDATES)
def test_an_update_that_reports_something_else_is_named(case: str, train: Callable[..., Any]) -> None:
    change, complaint = UPDATES[case]

    class Mine(ToyUpdate):
        def step(self, ctx: Any) -> Any:
            return change(super().step(ctx))

    with pytest.raises(PluginError, match=rf"^train\.update \(updates\.Mine\): step\(\) {complaint}"):
        train("train.update = @updates.Mine()", plugins=(Component("updates", "Mine", Mine),))


class WrongNames(ToyUpdate):
    """An update that names an optimizer, or a network, that is not there."""

    def __init__(self, optimizer: str = "G", net: str = "generator") -> None:
        self.names = (optimizer, net)

    def step(self, ctx: Any) -> Any:
        ctx.minimise(*self.names, lambda G, D, batch: ({}, {}), {"latents": ctx.latents("generator")})


@pytest.mark.parametrize(("argument", "value"), [("optimizer", "g"), ("net", "Generator")])
def test_an_update_that_names_what_is_not_there(argument: str, value: str, train: Callable[..., Any]) -> None:
    lines = ["train.update = @updates.Mine()", f"updates.Mine.{argument} = '{value}'"]
    text = rf"train\.update \(updates\.Mine\).*ctx\.minimise got the {argument} '{value}'"
    with pytest.raises(TrainingError, match=text):
        train(*lines, plugins=(Component("updates", "Mine", WrongNames),))


def test_a_library_that_refuses_an_optimizers_settings_is_not_all_that_is_named(train: Callable[..., Any]) -> None:
    class Mine:
        def build(self, params: Any, stage: Any) -> torch.optim.Optimizer:
            return torch.optim.Adam(params, 1e-3, (0, 0.99))

    mine = Component("optimizers", "Mine", Mine)
    text = r"^train\.generator_optimizer \(optimizers\.Mine\): betas must be"
    with pytest.raises(ConfigError, match=text):
        train("train.generator_optimizer = @optimizers.Mine()", plugins=(mine,))


@pytest.mark.parametrize("built", [None, "adam"])
def test_an_optimizer_that_builds_none(built: Any, train: Callable[..., Any]) -> None:
    class Mine:
        def build(self, params: Any, stage: Any) -> Any:
            return built

    text = rf"optimizers\(\) returned a {type(built).__name__} under 'generator', which must be a torch.optim.Optimizer"
    with pytest.raises(PluginError, match=text):
        train("train.generator_optimizer = @optimizers.Mine()", plugins=(Component("optimizers", "Mine", Mine),))


class Spare(ToyUpdate):
    """An update that returns a second optimizer of D, and steps it or not."""

    def __init__(self, steps: bool = False) -> None:
        self.steps = steps

    def optimizers(self, experiment: Any, stage: Any, generator: Any, discriminator: Any) -> Any:
        spare = torch.optim.SGD(discriminator.parameters(), 1e-3)
        return {**super().optimizers(experiment, stage, generator, discriminator), "spare": spare}

    def step(self, ctx: Any) -> Any:
        if self.steps:

            def terms(G: Any, D: Any, batch: Any) -> Any:
                return {"x": D(batch["real"]).score.square().mean()}, {}

            ctx.minimise("spare", "discriminator", terms, {"real": ctx.reals().images})
        return super().step(ctx)


def test_an_optimizer_that_is_never_stepped_is_said_once(train: Callable[..., Any]) -> None:
    lines = ["train.update = @updates.Spare()", "train.tick = 4"]
    spare = Component("updates", "Spare", Spare)
    with pytest.warns(UserWarning, match="has not stepped its optimizer 'spare' in stage 4x4, until images 4"):
        run = train(*lines, plugins=(spare,))
    assert (run.directory / "log.txt").read_text().count("has not stepped its optimizer") == 1
    stepped = train(*lines, "updates.Spare.steps = True", plugins=(spare,))
    assert "has not stepped" not in (stepped.directory / "log.txt").read_text()


class HalfStepped(ToyUpdate):
    """An update that steps the first weight of each network alone: the optimizers of the others are never stepped."""

    def optimizers(self, experiment: Any, stage: Any, generator: Any, discriminator: Any) -> Any:
        optimizers = {}
        for name, net in {"G": generator, "D": discriminator}.items():
            first, *others = net.parameters()
            optimizers[name] = torch.optim.SGD([first], 1e-3)
            optimizers[f"others of {name}"] = torch.optim.SGD(others, 1e-3)
        return optimizers


@pytest.mark.filterwarnings("ignore:.*has not stepped its optimizer")
def test_gradients_of_weights_that_the_stepped_optimizer_does_not_hold_are_those_of_one_step(
    train: Callable[..., Any],
) -> None:
    """With rates of almost 0, each step's gradient would be that of the first, and a sum of steps grows."""
    norms: list[float] = []

    class Watch:
        @hookimpl
        def after_step(self, state: Any) -> None:
            gradients = [param.grad for param in state.generator.parameters()]
            norms.append(float(torch.stack([g.square().sum() for g in gradients]).sum().sqrt()))

    lines = ["train.update = @updates.Half()", "schedule.sizes = (4,)", "schedule.stable_images = 80"]
    train(*lines, plugins=(Component("updates", "Half", HalfStepped), Watch()))
    assert len(norms) == 20
    assert max(norms[10:]) < 3 * max(norms[:3])
