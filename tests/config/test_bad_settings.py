"""Every setting and every parameter of every shipped component, with values that it must refuse.

The cases come from the signatures, so a new parameter is tested too: a value of a wrong type, a number far below any
range, and a string that is not a choice. Parameters that take any number or string are in the lists below.
"""

import inspect
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from conftest import TINY
from helpers.ablation_plugin import SWITCH
from helpers.gin_text import bind_again
from helpers.paths import ABLATION_PLUGIN, STUB_PLUGIN

from pggan_kit.config.arguments import fits_annotation, read_annotations
from pggan_kit.config.builder import ROOTS, build_from_config
from pggan_kit.config.gin_files import parse_text
from pggan_kit.errors import SettingError, UserError
from pggan_kit.growth.averages import check_average_name
from pggan_kit.plugin_host.loading import Plugins, load_plugins

CHOSEN_BY = {
    "architectures": "train.architecture = @{}()",
    "resampling": "train.resampling = @{}()",
    "losses": "train.loss = @{}()",
    "penalties": "losses.Hinge.penalties = [@{}()]",
    "generator_penalties": "train.generator_penalties = [@{}()]",
    "updates": "train.update = @{}()",
    "augmentations": "train.augmentation = @{}()",
    "averages": "train.averages = [@{}()]",
    "curves": "optimizers.Adam.lr = @{}()",
    "optimizers": "train.generator_optimizer = @{}()",
    "datasets": "train.dataset = @{}()",
    "switches": "train.switch = @{}()",
    "growth": "train.growth = @{}()",
    "observers": "train.observers = [@{}()]",
    "metrics": "train.metrics = [@{}()]",
    "features": "train.metrics = [@metrics.FrechetDistance()]\nmetrics.FrechetDistance.features = @{}()",
}
"""Lines that bring a component of each kind into the tiny experiment."""

NEEDED = {
    "curves.Steps.values": "{0: 1e-3}",
    "datasets.Torch.dataset": "[1, 2]",
    "metrics.FrechetDistance.features": "@features.Digits()",
    "metrics.KernelDistance.features": "@features.Digits()",
    "metrics.PrecisionRecall.features": "@features.Digits()",
    "metrics.ClassCoverage.features": "@features.DigitClasses()",
    "metrics.DensityCoverage.features": "@features.Digits()",
    "metrics.VendiScore.features": "@features.Digits()",
    "metrics.Modes.features": "@features.DigitClasses()",
    "observers.Spectra.spectrum": "@metrics.RadialSpectrum()",
    "losses.Sum.losses": "[@losses.Hinge()]",
}
"""Values of parameters without a default that are neither a string nor a number."""

ANY_NUMBER = {
    "curves.Constant.value": "what a curve stands for decides",
    **{f"curves.{name}.{end}": "the same" for name in ("Linear", "Cosine") for end in ("begin", "end")},
    "curves.WarmUp.value": "the same",
    **{
        f"curves.{name}.{place}_images": "below 0 counts from the end"
        for name in ("Linear", "Cosine", "Exponential")
        for place in ("start", "end")
    },
    "losses.LeastSquares.fake_target": "scores are unbounded",
    "losses.LeastSquares.real_target": "scores are unbounded",
    "losses.LeastSquares.generator_target": "scores are unbounded",
}
ROWS = load_plugins().rows
METRICS = [selector.partition(".")[2] for selector in ROWS if selector.startswith("metrics.")]
ANY_TEXT = {
    "train.device": "has a test of its own below",
    "data.cache": "names a folder",
    "datasets.MNIST.folder": "names a folder",
    "datasets.StackedMNIST.folder": "names a folder",
    "datasets.ImageFolder.folder": "names a folder",
    "datasets.ArrayFolder.folder": "names a folder",
    "datasets.Arrays.file": "names a file",
    "datasets.CSV.file": "names a file",
    "datasets.CSV.folder": "names a folder",
    "datasets.CSV.file_column": "the file knows its columns",
    "datasets.CSV.label_column": "the file knows its columns",
    "datasets.LMDB.folder": "names a folder",
    "datasets.WebDataset.shards": "names files",
    "datasets.WebDataset.image_key": "the files know their names",
    "datasets.WebDataset.label_key": "the files know their names",
    "datasets.WebDataset.label_field": "the files know their fields",
    "datasets.DICOM.folder": "names a folder",
    "datasets.HDF5.file": "names a file",
    "datasets.HDF5.images": "the file knows its data sets",
    "datasets.HDF5.labels": "the file knows its data sets",
    "datasets.HuggingFace.path": "names a data set",
    "datasets.Torch.name": "names the contents",
    "switches.Plateau.watch": "names a tag",
    "features.Inception.weights": "names a file",
    "features.DINOv2.weights": "names a file",
    **{f"observers.{name}.project": "names a project" for name in ("WandB", "MLflow", "Trackio")},
    "observers.WandB.entity": "names a team",
    "observers.MLflow.uri": "names a server or a file",
    "observers.Trackio.space": "names a space",
    **{f"metrics.{name}.suffix": "ends a value's name" for name in METRICS},
    "datasets.HuggingFace.split": "the data set knows its splits",
    "datasets.HuggingFace.image_column": "the data set knows its columns",
    "datasets.HuggingFace.label_column": "the data set knows its columns",
}
ANYTHING = {"datasets.Torch.dataset": "checked by its methods"}

WRONG_TYPE = "{'no': ['such', 'thing']}"
FAR_BELOW = "-1_000_000_000"
NO_CHOICE = "'no such choice'"


def list_parameters() -> Iterator[tuple[str, str, typing.Any]]:
    """Yield the selector, name and annotation of every parameter that a config may bind."""
    factories = dict(ROOTS)
    for selector, row in ROWS.items():
        # Launchers are chosen in ablations: see tests/ablation/test_conduct.py.
        if row.component.kind != "launchers":
            factories[selector] = row.component.factory
    for selector, factory in factories.items():
        hints = read_annotations(factory)
        for name in inspect.signature(factory).parameters:
            if not (selector == "train" and name in ROOTS):
                yield selector, name, hints.get(name, typing.Any)


def list_cases() -> dict[str, list[tuple[str, str]]]:
    """Return parameters and values that they must refuse, by selector."""
    cases: dict[str, list[tuple[str, str]]] = {}
    for selector, name, hint in list_parameters():
        target = f"{selector}.{name}"
        of_component = cases.setdefault(selector, [])
        if target not in ANYTHING:
            of_component.append((name, WRONG_TYPE))
        if fits_annotation(-5, hint) and hint is not typing.Any and target not in ANY_NUMBER:
            of_component.append((name, FAR_BELOW))
        if fits_annotation("", hint) and hint is not typing.Any and target not in ANY_TEXT:
            of_component.append((name, NO_CHOICE))
    return {selector: of_component for selector, of_component in cases.items() if of_component}


def choose_needed_values(selector: str) -> dict[str, str]:
    """Return gin values for a component's parameters that have no default."""
    component = ROWS[selector].component
    hints = read_annotations(component.factory)
    values = {}
    for name, parameter in inspect.signature(component.factory).parameters.items():
        if parameter.default is not parameter.empty or name in component.defaults:
            continue
        target = f"{selector}.{name}"
        if target in NEEDED:
            values[target] = NEEDED[target]
        elif fits_annotation("", hints[name]):
            values[target] = "'nowhere'"
        else:
            values[target] = "1"
    return values


def write_config(selector: str, name: str, value: str) -> tuple[list[str], str]:
    """Return lines that choose a component and bind one of its parameters last, and the rest of the config.

    The rest is the tiny experiment without bindings that the choice makes useless.
    """
    base = TINY
    lines = []
    if selector not in ROOTS:
        lines.append(CHOSEN_BY[selector.partition(".")[0]].format(selector))
        for target, needed in choose_needed_values(selector).items():
            if target != f"{selector}.{name}":
                lines.append(f"{target} = {needed}")
    if selector.startswith("architectures.") or (selector, name) == ("train", "architecture"):
        base = "".join(line for line in TINY.splitlines(keepends=True) if not line.startswith("architectures."))
    return [*lines, f"{selector}.{name} = {value}"], base


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    """Return the plugins, which builders only read."""
    return load_plugins([STUB_PLUGIN])


@pytest.fixture
def refused_by_builder(plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that is `rejected` without the command line, which takes two thirds of its time."""
    monkeypatch.chdir(tmp_path)

    def check(pattern: str, *lines: str, base: str = TINY) -> str:
        with pytest.raises(UserError, match=rf"^{pattern}") as raised:
            build_from_config(parse_text(bind_again(base, lines), "tiny.gin"), plugins)
        message = str(raised.value)
        assert message.isprintable() and len(message) < 700, message
        return message

    return check


CASES = list_cases()


@pytest.mark.parametrize("selector", CASES)
def test_wrong_values_are_refused(selector: str, refused_by_builder: Callable[..., str]) -> None:
    for name, value in CASES[selector]:
        lines, base = write_config(selector, name, value)
        line = len((base + "\n".join(lines)).splitlines())
        refused_by_builder(rf"tiny\.gin:{line}: {selector}\.{name}\b", *lines, base=base)


RANGES = [
    ("schedule.sizes", "()", "must name at least one image size"),
    ("schedule.sizes", "(7, 15)", "7x7 -> 15x15 does not (next would be 14x14)"),
    ("schedule.sizes", "((4, 6), (8, 18))", "4x6 -> 8x18 does not"),
    ("schedule.sizes", "(8, 4)", "8x8 -> 4x4 does not"),
    ("schedule.sizes", "(4, 4)", "4x4 -> 4x4 does not"),
    ("schedule.sizes", "(0, 4)", "of at least 1, not 0"),
    ("schedule.sizes", "((4, 4, 4),)", "pairs of at least 1"),
    ("schedule.sizes", "4", "must be a list"),
    ("schedule.sizes", "(4.0, 8)", "must be a list of"),
    ("schedule.batch_size", "0", "must be a whole number of at least 1, and is 0"),
    ("schedule.batch_size", "{8: 4}", "no value for height 4"),
    ("schedule.batch_size", "{-4: 4}", "must be keyed by image height"),
    ("architectures.PGGAN.channels", "{0: 4}", "must be keyed by image height"),
    ("schedule.batch_size", "2.5", "must be a whole number"),
    ("schedule.batch_size", "True", "must be a whole number"),
    ("schedule.fade_images", "-1", "must be at least 0, and is -1"),
    ("schedule.fade_images", "'3 weeks'", "like '3000 steps' or '2 epochs'"),
    ("schedule.fade_images", f"'1{'0' * 400} epochs'", "must be at most 9223372036854775807 images, and is more"),
    ("schedule.stable_images", "{4: -1, 8: 3}", "must be at least 0, and is -1"),
    ("schedule.stable_images", "{4: 1, 8: 'x'}", "like '3000 steps'"),
    ("schedule.total_images", "0", "must be above 0"),
    ("train.averages", "[]", "must hold one at least: [@averages.Copy()] averages nothing"),
    ("train.averages", "@averages.HalfLife()", "must be a list"),
    (
        "train.averages",
        "[@averages.Copy(), @b/averages.Copy()]",
        "has two averages with the name copy: give one of them",
    ),
    ("train.tick", "0", "must be at least 1, and is 0"),
    ("train.keep", "True", "must be a whole number, not True"),
    ("train.keep", "0", "must be at least 1, and is 0"),
    ("train.latent_size", "0", "must be at least 1, and is 0"),
    ("train.seed", "-1", "must be a whole number from 0 to 9223372036854775807, and is -1"),
    ("train.seed", "18446744073709551616", "is too large: none may be above 9223372036854775807"),
    ("train.seed", "1.0", "must be a whole number, not 1.0"),
    ("train.network_seed", "-1", "must be a whole number from 0 to 9223372036854775807, and is -1"),
    ("train.seed", "None", "must be a whole number, not None"),
    ("train.micro_batch", "0", "must be at least 1, and is 0"),
    ("train.micro_batch", "{8: 2}", "no value for height 4"),
    ("train.micro_batch", "2.5", "must be a whole number"),
    ("train.precision", "'float8'", "must be 'float32', 'bfloat16', 'float16' or 'auto', not 'float8'"),
    ("train.tf32", "1", "must be True or False, not 1"),
    ("train.deterministic", "'yes'", "must be 'never', 'warn' or 'always', not 'yes'"),
    ("data.device_memory", "-1", "must be at least 0, and is -1"),
    ("data.device_memory", "'auto'", "must be a whole number or None"),
    ("train.fade_reals", "1", "must be True or False, not 1"),
    ("train.growth", "'freeze'", "must be a component"),
    ("train.observers", "@observers.Samples()", "must be a list"),
    ("train.non_finite", "'ignore'", "must be 'stop', 'skip' or 'rewind', not 'ignore'"),
    ("train.non_finite_limit", "0", "must be at least 1, and is 0"),
    ("train.collapse_below", "1.0", "must be in [0, 1), and is 1.0"),
    ("train.collapse_below", "-0.1", "must be in [0, 1), and is -0.1"),
    ("train.time_limit", "0", "must be above 0, or None, and is 0"),
    ("train.time_limit", "'1h'", "must be a number"),
    ("evaluation.count", "1", "must be at least 2, and is 1"),
    (
        "evaluation.every",
        "0",
        "must be a whole number of at least 1, or 'phase', or None for a hundredth",
    ),
    ("evaluation.every", "{8: 5}", "has no value for height 4"),
    (
        "train.checkpoint_every",
        "0",
        "must be a whole number of at least 1, or 'phase', or None for a hundredth",
    ),
    ("train.checkpoint_every", "{8: 5}", "has no value for height 4"),
    ("train.diversity_every", "'stage'", "must be a number of images, or 'phase', not 'stage'"),
    ("train.keep_stages", "'all'", "must be 'state', 'weights', 'average' or 'nothing', not 'all'"),
    ("evaluation.batch_size", "0", "must be at least 1, and is 0"),
    ("evaluation.dataset", "'held out'", "must be a component, as @datasets.NAME() or None"),
    ("train.metrics", "[@datasets.MNIST()]", "must be a list of (a component, as @metrics.NAME())"),
    ("optimizers.Adam.lr", "0", "must be above 0, and is 0"),
    ("optimizers.Adam.lr", "-1.0", "must be above 0, and is -1.0"),
    ("optimizers.Adam.lr", "{4: 1e-3, 8: -1}", "must be above 0, and is -1"),
    ("optimizers.Adam.lr", "{8: 1e-3}", "no value for height 4"),
    ("optimizers.Adam.lr", "'fast'", "must be a number"),
    ("optimizers.Adam.lr", "1e999", "too large"),
    ("optimizers.Adam.lr", "{4: 1e-3, 8: 1_000_000_000_000_000_000_000}", "a whole number is too large"),
    ("d/optimizers.Adam.beta2", "1.0", "must be in [0, 1), and is 1.0"),
    ("architectures.PGGAN.channels", "{4: 0}", "at least 1"),
    ("updates.Alternating.n_critic", "0", "at least 1"),
]


@pytest.mark.parametrize(("target", "value", "complaint"), RANGES, ids=[f"{t}={v[:40]}" for t, v, _ in RANGES])
def test_a_value_out_of_range_is_refused(
    target: str, value: str, complaint: str, refused_by_builder: Callable[..., str]
) -> None:
    message = refused_by_builder(r"tiny\.gin:17: ", f"{target} = {value}")
    assert complaint in message
    assert target in message or "too large" in message


@pytest.mark.parametrize(
    ("target", "value", "complaint"),
    [
        (
            "optimizers.Adam.eps",
            "@curves.Constant()",
            "a number, not @curves.Constant(); it cannot move with the clock",
        ),
        ("train.seed", "@curves.Constant()", "a whole number, not @curves.Constant(); it cannot move with the clock"),
        (
            "schedule.batch_size",
            "{4: @curves.Constant()}",
            "a whole number or a dict of a whole number to a whole number, not {4: @curves.Constant()}; it cannot move",
        ),
        ("train.loss", "@curves.Constant()", "a component, as @losses.NAME(), not @curves.Constant(); it cannot move"),
        (
            "optimizers.Adam.lr",
            "@curves.Constant",
            "a number, a curve, as @curves.NAME(), or a dict of these by image height, not @curves.Constant without",
        ),
        ("optimizers.Adam.lr", "{4: @curves.Constant}", "{4: @curves.Constant without its parentheses ()}"),
        ("optimizers.Adam.lr", "@losses.Hinge()", "or a dict of these by image height, not @losses.Hinge()"),
        ("optimizers.Adam.lr", "{8: @curves.Constant()}", "no value for height 4"),
        ("curves.Constant.value", "@other/curves.Constant()", "must be a number, not "),
    ],
)
def test_a_curve_is_taken_where_a_setting_may_move_and_nowhere_else(
    target: str, value: str, complaint: str, refused_by_builder: Callable[..., str]
) -> None:
    lines = ["optimizers.Adam.beta1 = @curves.Constant()", "other/curves.Constant.value = 0.0"]
    if not target.startswith("curves."):
        lines.append("curves.Constant.value = 0.0")
    if "@other" not in value:
        lines.append("optimizers.Adam.beta2 = @other/curves.Constant()")
    message = refused_by_builder(rf"tiny\.gin:\d+: {target} ", *lines, f"{target} = {value}")
    assert complaint in message


AT_EACH_PLACE = {
    "train.observers": "@observers.Samples()",  # by its annotation
    "schedule.sizes": "(8, 4)",  # by the root that takes it
    "evaluation.count": "1",  # by another one
    "train.precision": "'float8'",  # by the root that takes the others
    "d/optimizers.Adam.beta2": "1.0",  # by a component
    "train.micro_batch": "{8: 2}",  # where the sizes are known
    "optimizers.Adam.lr": "{8: 1e-3}",  # by a component where they are known
}
"""A wrong value for each place of the code that refuses one."""


@pytest.mark.parametrize("target", AT_EACH_PLACE)
def test_every_command_refuses_the_same_before_anything_starts(
    target: str, tiny: Callable[..., str], cli: Callable[..., Result], refused: Callable[[Result, str], str]
) -> None:
    plugins = ["--plugin", STUB_PLUGIN, "--plugin", ABLATION_PLUGIN]
    file = tiny(f"{target} = {AT_EACH_PLACE[target]}")
    Path("switch.gin").write_text(SWITCH.replace("(0, 1)", "(0, 1, 2, 3, 4, 5)"))
    message = refused(cli("config", "check", file, *plugins), r"^error: tiny\.gin:17: ")
    for command in ("plan", "train"):
        assert refused(cli(command, file, *plugins), "") == message
    of_variants = message.replace("error: ", "error: all variants of ablate.variants: ")
    assert refused(cli("ablate", "switch.gin", "--dry-run", *plugins), "") == of_variants


OF_AVERAGES = [
    ("PerUpdate.decay", "1", "must be in [0, 1), and is 1"),
    ("PerUpdate.decay", "{4: 0.9, 16: -0.1}", "must be in [0, 1), and is -0.1"),
    ("PerUpdate.decay", "{8: 0.9}", "no value for height 4"),
    ("HalfLife.half_life", "-1", "must be at least 0, and is -1"),
    ("HalfLife.half_life", "{4: 100, 16: -0.5}", "must be at least 0, and is -0.5"),
    ("HalfLife.half_life", "{8: 100}", "no value for height 4"),
    ("HalfLife.half_life", "'10k'", "averages.HalfLife.half_life must be a number"),
    ("HalfLife.ramp_up", "0", "must be in (0, 1], or None, and is 0"),
    ("HalfLife.ramp_up", "1.5", "must be in (0, 1], or None, and is 1.5"),
    ("HalfLife.name", "7", "must be a string, not 7"),
    ("PowerFunction.widths", "(0.05, 0)", "must be in [0.0001, 0.288], and is 0"),
    ("PowerFunction.widths", "(0.3,)", "must be in [0.0001, 0.288], and is 0.3"),
    ("PowerFunction.widths", "(0.1, 0.1)", "must be at least one, each once in its first six digits, not [0.1, 0.1]"),
    ("PowerFunction.widths", "()", "must be at least one, each once in its first six digits, not []"),
    ("PowerFunction.snapshots", "0", "must be a whole number of at least 1, and is 0"),
]


@pytest.mark.parametrize(("parameter", "value", "complaint"), OF_AVERAGES, ids=[f"{p}={v}" for p, v, _ in OF_AVERAGES])
def test_a_setting_of_an_average_out_of_range_is_refused(
    parameter: str, value: str, complaint: str, refused_by_builder: Callable[..., str]
) -> None:
    chosen = f"train.averages = [@averages.{parameter.partition('.')[0]}()]"
    message = refused_by_builder(r"tiny\.gin:18: ", chosen, f"averages.{parameter} = {value}")
    assert complaint in message


@pytest.mark.parametrize("name", ["inf", "NaN", "Infinity"])
def test_the_name_of_an_average_is_nothing_that_a_command_takes_for_a_width(name: str) -> None:
    """`--average inf` would be the width, and the average could not be chosen."""
    with pytest.raises(SettingError, match=f"^name must name an average by no number, .* as '{name}' is"):
        check_average_name("name", name)


def test_the_name_of_an_average_is_no_width(rejected: Callable[..., str]) -> None:
    lines = ("train.averages = [@averages.Copy()]", "averages.Copy.name = '0.05'")
    rejected(r"tiny\.gin:18: averages\.Copy\.name must name an average by a letter, .* not by '0\.05'", *lines)


@pytest.mark.parametrize("name", ["cudaa", "cuda:99", "meta gpu"])
def test_a_device_that_does_not_exist_is_refused(name: str, rejected: Callable[..., str]) -> None:
    rejected(rf"train\.device '{name}' cannot be used", f"train.device = '{name}'")


@pytest.mark.parametrize("name", ["architecture", "resampling", "loss", "update", "dataset"])
def test_a_missing_component_is_named(name: str, rejected: Callable[..., str]) -> None:
    base = "".join(
        line
        for line in TINY.splitlines(keepends=True)
        if not line.startswith((f"train.{name} ", "architectures.PGGAN" if name == "architecture" else "train.none"))
    )
    rejected(rf"train needs a value for {name}: bind train\.{name}", base=base)


@pytest.mark.parametrize("name", ["sizes", "fade_images", "stable_images", "batch_size"])
def test_a_missing_schedule_setting_is_named(name: str, rejected: Callable[..., str]) -> None:
    base = "".join(line for line in TINY.splitlines(keepends=True) if not line.startswith(f"schedule.{name} "))
    rejected(rf"schedule needs a value for {name}: bind", base=base)


@pytest.mark.parametrize("name", ["generator_optimizer", "discriminator_optimizer"])
def test_a_missing_optimizer_is_named(name: str, rejected: Callable[..., str]) -> None:
    base = "".join(line for line in TINY.splitlines(keepends=True) if not line.startswith(f"train.{name} "))
    rejected(rf"needs train\.{name}", base=base)


def test_a_missing_parameter_without_a_default_is_named(rejected: Callable[..., str]) -> None:
    rejected(r"datasets\.ImageFolder needs a value for folder: bind", "train.dataset = @datasets.ImageFolder()")


def test_a_missing_component_of_a_component_is_suggested(rejected: Callable[..., str]) -> None:
    message = rejected(
        r"metrics\.FrechetDistance needs a value for features: bind metrics\.FrechetDistance\.features = @features\.",
        "train.metrics = [@metrics.FrechetDistance()]",
    )
    assert set(re.findall(r"@(\S+)\(\)", message)) == {name for name in ROWS if name.startswith("features.")}


def test_a_schedule_without_images_is_refused(rejected: Callable[..., str]) -> None:
    rejected(
        r"schedule\.stable_images must be above 0 .*no images", "schedule.fade_images = 0", "schedule.stable_images = 0"
    )
