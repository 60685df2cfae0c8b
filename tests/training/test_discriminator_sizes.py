"""Test a discriminator that is larger, or smaller, than the generator: at full size, a stage ahead, a stage behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from click.testing import Result
from conftest import STUB
from helpers.compiled_steps import NETS, Steps
from helpers.killing import StopAt, assert_same_run, last

import pggan_kit
from pggan_kit import hookimpl
from pggan_kit.api.generator import load_generator
from pggan_kit.api.prepare import prepare
from pggan_kit.api.train import resume
from pggan_kit.errors import Interrupted, RunError
from pggan_kit.schedule import ScheduleSettings
from pggan_kit.testing.support import are_equal
from pggan_plugins.losses import Hinge

FULL = "schedule.discriminator_height = 16"
AHEAD = "schedule.discriminator_height = {4: 8, 8: 16}"
BEHIND = "schedule.discriminator_height = {4: 4, 16: 8}"
PENALTY = ["train.loss = @losses.WGANGP()"]


class Look:
    """A plugin that notes, for each phase, the size of both networks, their old paths, and whether alpha is below 1."""

    def __init__(self) -> None:
        self.phases: dict[tuple[str, str], Any] = {}
        self.sizes: set[tuple[int, int]] = set()

    @hookimpl
    def before_stage(self, run: Any, state: Any) -> None:
        def note(module: Any, inputs: tuple[torch.Tensor]) -> None:
            # The old path keeps the layer of the stage before.
            if module is state.discriminator.from_image:
                self.sizes.add((state.stage.height, inputs[0].shape[2]))

        state.discriminator.from_image.register_forward_pre_hook(note)

    @hookimpl
    def after_step(self, run: Any, state: Any) -> None:
        bridged = {net: state.network(net).bridge is not None for net in NETS}
        blocks = {net: len(state.network(net).blocks) for net in NETS}
        alphas = {net: run.alpha[net] < 1 for net in NETS}
        self.phases[state.stage.size, state.phase] = (tuple(blocks.values()), bridged, alphas)
        assert bridged == alphas or run.alpha["reals"] == 1


def only(*nets: str) -> dict[str, bool]:
    return {net: net in nets for net in NETS}


CASES = {
    FULL: (
        {(4, 16), (8, 16), (16, 16)},
        {
            ("4x4", "stable"): ((0, 2), only()),
            ("8x8", "fade"): ((1, 2), only("generator")),
            ("8x8", "stable"): ((1, 2), only()),
            ("16x16", "fade"): ((2, 2), only("generator")),
            ("16x16", "stable"): ((2, 2), only()),
        },
    ),
    AHEAD: (
        {(4, 8), (8, 16), (16, 16)},
        {
            ("4x4", "stable"): ((0, 1), only()),
            ("8x8", "fade"): ((1, 2), only(*NETS)),
            ("8x8", "stable"): ((1, 2), only()),
            ("16x16", "fade"): ((2, 2), only("generator")),
            ("16x16", "stable"): ((2, 2), only()),
        },
    ),
    BEHIND: (
        {(4, 4), (8, 4), (16, 8)},
        {
            ("4x4", "stable"): ((0, 0), only()),
            ("8x8", "fade"): ((1, 0), only("generator")),
            ("8x8", "stable"): ((1, 0), only()),
            ("16x16", "fade"): ((2, 1), only(*NETS)),
            ("16x16", "stable"): ((2, 1), only()),
        },
    ),
}


@pytest.mark.parametrize("line", CASES)
def test_it_grows_and_fades_for_itself_and_resumes_amid_the_fade(line: str, train: Callable[..., Any]) -> None:
    sizes, phases = CASES[line]
    look = Look()
    train(line, *PENALTY, run_dir="whole", plugins=(look,))
    found = {place: (blocks, bridged) for place, (blocks, bridged, _) in look.phases.items()}
    assert found == phases
    assert look.sizes == sizes, "what D's first layer sees of images of each size"

    with pytest.raises(Interrupted):
        train(line, *PENALTY, run_dir="halted", plugins=(StopAt(28),))
    resume("halted", plugins=[STUB])
    assert_same_run(Path("halted"), Path("whole"))
    assert load_generator("halted", plugins=[STUB])(torch.zeros(1, 8)).shape == (1, 1, 16, 16)


def test_images_are_resized_by_the_pair_for_images(tiny: Callable[..., str]) -> None:
    """Against torch's own resampling, to the discriminator of another state that has grown to its size."""
    images = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    for line, resized in ((FULL, F.interpolate(images, scale_factor=2)), (BEHIND, F.avg_pool2d(images, 2))):
        prepared = prepare(tiny(line), plugins=[STUB])
        state = prepared.state(prepared.schedule())
        state.grow(only())
        plain = prepare(tiny(), plugins=[STUB])
        other = plain.state(plain.schedule())
        for _ in state.discriminator.blocks:
            other.grow(only())
        state.discriminator.double()
        other.discriminator.double()
        with torch.no_grad():
            score = state.discriminator(images).score
            torch.testing.assert_close(score, other.discriminator(resized).score, rtol=0, atol=1e-12)


def test_the_generators_own_heights_change_nothing(train: Callable[..., Any]) -> None:
    sizes = "schedule.sizes = (4, 8)"
    plain = train(sizes, run_dir="plain")
    named = train(sizes, "schedule.discriminator_height = {4: 4, 8: 8}", run_dir="named")
    ended = last(named.directory)
    wanted = last(plain.directory)
    assert ended["identity"]["schedule"] == wanted["identity"]["schedule"]
    for name in ("generator", "averages", "discriminator", "optimizers"):
        assert are_equal(ended[name], wanted[name]), name


def test_a_switch_is_not_asked_about_a_discriminator_that_stays(train: Callable[..., Any]) -> None:
    asked: set[tuple[str, str]] = set()

    class Ask:
        @hookimpl
        def fade_alpha(self, stage: Any, path: str, progress: float) -> float:
            asked.add((stage.size, path))
            return progress

    train(AHEAD, "train.switch = None", plugins=(Ask(),), run_dir="run")
    assert asked == {
        *(("8x8", path) for path in (*NETS, "reals")),
        *(("16x16", path) for path in ("generator", "reals")),
    }


@pytest.mark.parametrize("height", [8, {4: 4, 8: 8}])
def test_a_compiled_step_is_the_eager_one(height: Any) -> None:
    schedule = ScheduleSettings((4, 8), fade_images=12, stable_images=8, batch_size=4, discriminator_height=height)
    losses = []
    weights = []
    torch.set_default_dtype(torch.float64)
    try:
        for choice in ("never", "always"):
            steps = Steps(choice, schedule=schedule, loss=Hinge())
            assert steps.state.stage.height == 4
            losses.append(steps.take())
            weights.append(steps.weights())
            compiled = set(steps.compiler.outcome.values())
    finally:
        torch.set_default_dtype(torch.float32)
    assert compiled == {"compiled"}, steps.lines
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-9, atol=1e-9)


def test_what_the_discriminator_has_grown_to_belongs_to_the_networks(
    train: Callable[..., Any], tiny: Callable[..., str]
) -> None:
    with pytest.raises(Interrupted):
        train(FULL, run_dir="run", plugins=(StopAt(28),))
    with pytest.raises(RunError, match=r"another schedule \(discriminator at 4x4: 16x16 there, nothing here"):
        resume("run", ["schedule.discriminator_height = None"], plugins=[STUB])
    for option in ("start_from", "stem"):
        with pytest.raises(RunError, match=r"at 8x8 the discriminator has the size 16x16 there, and 8x8 in"):
            pggan_kit.train(tiny(), run_dir="other", plugins=[STUB], **{option: "run@8x8"})
    other = tiny(FULL, "architectures.PGGAN.channels = {16: 5, 4: 4}")
    with pytest.raises(RunError, match=r"architectures\.PGGAN\.channels is 4 there, and \{16: 5, 4: 4\} in"):
        pggan_kit.train(other, run_dir="other", plugins=[STUB], start_from="run@8x8")
    grown = pggan_kit.train(tiny(FULL), run_dir="other", plugins=[STUB], stem="run@8x8")
    assert grown.state.starts == [0, 8, 24] and grown.state.images == 40


def test_plan_shows_it_and_statistics_are_those_of_its_own_stage(
    tiny: Callable[..., str], cli: Callable[..., Result], no_memory_count: None
) -> None:
    result = cli("plan", tiny(FULL), "--plugin", STUB, "--json")
    rows = json.loads(result.stdout)
    assert [(row["size"], row["discriminator_size"]) for row in rows] == [
        ("4x4", "16x16"),
        ("8x8", "16x16"),
        ("16x16", "16x16"),
    ]
    assert len({row["discriminator_parameters"] for row in rows}) == 1
    assert len({row["generator_parameters"] for row in rows}) == 3

    Path("theirs.py").write_text("def make(size, alpha, width, batch, colours): ...\n")
    result = cli("bench", "tiny.gin", "--plugin", STUB, "--against", "theirs.py:make")
    assert result.exit_code == 2 and "leave schedule.discriminator_height out" in result.stderr


@pytest.mark.parametrize(
    ("value", "pattern"),
    [
        ("12", r"discriminator_height must be one of the heights of schedule\.sizes, \[4, 8, 16\], not 12"),
        ("'full'", r"discriminator_height must be "),
        ("{4: 16, 8: 8}", r"discriminator_height goes from 16 to 8 at height 8: D keeps its size or grows to the next"),
        ("{4: 4, 8: 16}", r"discriminator_height goes from 4 to 16 at height 8: D keeps its size or grows to the next"),
        ("{8: 16}", r"discriminator_height has no value for height 4"),
    ],
)
def test_a_wrong_height_is_refused(value: str, pattern: str, rejected: Callable[..., str]) -> None:
    rejected(pattern, f"schedule.discriminator_height = {value}")
