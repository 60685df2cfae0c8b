"""What the documentation says is so: code runs, commands exist, references are whole, links lead somewhere."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import Result
from helpers import made_up_ablation
from helpers.forks import Fork
from helpers.paths import ROOT
from helpers.reporting import draw_few_pictures, leave_out_plots
from PIL import Image
from sphinx.cmd import build as sphinx_build
from test_house import FRONT_DOOR, HOUSE

import pggan_kit
from pggan_kit import hookspecs
from pggan_kit.ablation.analysis import analyse_results
from pggan_kit.ablation.plan_reading import read_plan as read_plan
from pggan_kit.ablation.statistics import count_pairs_needed
from pggan_kit.ablation.table import build_tables
from pggan_kit.ablation.verdicts import add_verdicts
from pggan_kit.api.prepare import prepare
from pggan_kit.cli import main
from pggan_kit.cli.base import DefaultGroup
from pggan_kit.components import KINDS
from pggan_kit.errors import UserError
from pggan_kit.plugin_host.loading import load_plugins

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("guides/*.md"))]
SHORT = ["schedule.fade_images = '1 steps'", "schedule.stable_images = '1 steps'", "schedule.total_images = None"]

sys.path.insert(0, str(DOCS))
import reference  # noqa: E402  (it lies beside the pages)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> Iterator[list[str]]:
    for block in blocks(text, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["pggan-kit"]:
                yield words[1:]


def recipes() -> list[tuple[str, str]]:
    """The cookbook's sections with a configuration or code."""
    sections = re.split(r"^## ", (DOCS / "cookbook.md").read_text(), flags=re.MULTILINE)[1:]
    named = [(section.splitlines()[0], section) for section in sections]
    return [(name, section) for name, section in named if blocks(section, "gin") or blocks(section, "python")]


def test_hook_reference_names_every_hook_and_argument() -> None:
    text = reference.hooks()
    specs = [name for name, value in vars(hookspecs).items() if hasattr(value, "pggan_kit_spec")]
    assert len(specs) > 10
    for name in specs:
        section = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
        for argument in getattr(hookspecs, name).__annotations__:
            assert argument == "return" or argument in section


def test_part_reference_names_every_part_and_setting() -> None:
    text = reference.parts()
    for selector, row in load_plugins().rows.items():
        if row.plugin.origin.startswith("pggan_kit "):
            section = text.split(f"\n### {selector}\n")[1].split("\n##")[0]
            for name in reference.inspect.signature(row.component.factory).parameters:
                assert f"{selector}.{name} = " in section


def test_reference_of_the_front_door_names_everything_that_it_gives() -> None:
    text = reference.api()
    assert set(reference.FRONT_DOOR) == FRONT_DOOR
    for name in pggan_kit.__all__:
        assert f"\n### pggan_kit.{name}\n" in text
    assert "\n### pggan_kit.testing.LossSuite\n" in text and "\n### pggan_kit.components.Loss\n" in text
    assert "train(config: " in text.split("\n### pggan_kit.train\n")[1].split("\n###")[0]


def test_each_kind_has_a_guide() -> None:
    assert {page.stem for page in DOCS.glob("guides/*.md")} == {*KINDS, "data", "hooks", "index"}


def test_what_guides_include_is_linked_for_those_who_read_the_files() -> None:
    for page in DOCS.glob("guides/*.md"):
        lines = page.read_text().splitlines()
        for number, line in enumerate(lines):
            if line.startswith("```{literalinclude}"):
                path = line.split()[1].removeprefix("../../")
                assert f"[{path}](https://github.com/pggan-kit/pggan_kit/blob/main/{path})" in lines[number - 2], (
                    page.name
                )


def test_the_guide_to_observers_lists_the_tags_of_a_run(train: Callable[..., Any], tmp_path: Path) -> None:
    metric = ["train.metrics = [@metrics.RadialSpectrum()]", "evaluation.count = 16", "evaluation.every = 1"]
    run = train(*metric, "train.diversity_every = 1", "train.non_finite = 'rewind'")
    table = (DOCS / "guides/observers.md").read_text().split("| tag | what it is |")[1].split("\n\n")[0]
    listed = [tag.replace("NAME", ".+") for tag in re.findall(r"`([A-Z][a-z]+/[\w/]+)`", table)]
    tags = {tag for row in run.stats for tag in row if "/" in tag}
    assert len(tags) > 12
    for tag in tags:
        assert any(re.fullmatch(pattern, tag) for pattern in listed), tag


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in commands(page.read_text()):
        command, context = main, click.Context(main)
        while isinstance(command, click.Group):
            if isinstance(command, DefaultGroup) and words[0] not in command.commands:
                words = ["run", *words]
            assert words and words[0] in command.commands, f"pggan-kit {' '.join(words)}"
            command, words = command.commands[words[0]], words[1:]
            context = click.Context(command, context)
        command.make_parser(context).parse_args(words)


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        told = {
            found for block in blocks(page.read_text(), "sh") for found in re.findall(r"^make ([\w-]+)", block, re.M)
        }
        assert told <= targets, page


@pytest.mark.parametrize(("name", "section"), recipes(), ids=[name for name, _ in recipes()])
def test_cookbook(name: str, section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "observers.WandB" in section:
        pytest.importorskip("wandb", reason="needs the extra wandb: make test-extras")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    (tmp_path / "pictures").mkdir()
    for i in range(4):
        Image.fromarray(np.full((32, 32, 3), 50 * i, np.uint8)).save(f"pictures/{i}.png")
    plugins = []
    for block in blocks(section, "python"):
        if "def components" in block:
            plugins.append(tmp_path / "mine.py")
            plugins[-1].write_text(block)
        else:
            exec(compile(block, name, "exec"), {})
    for block in blocks(section, "gin"):
        (tmp_path / "mine.gin").write_text(block.replace("include '", "include 'experiments/"))
        own = []
        if "my_images" in block:
            own += ["FOLDER = 'pictures'", "schedule.sizes = (4, 8)", "architectures.PGGAN.channels = 8"]
        if "Plateau" in block:
            # Its own numbers fit its schedule: the run ends early, and nothing of the block is bound again.
            few = ["schedule.total_images = 64", "datasets.MNIST.limit = 64", "evaluation.count = 16"]
            assert pggan_kit.train("mine.gin", few, run_dir="plateau").state.steps == 2
            continue
        as_it_is = [line for line in own if "schedule" not in line]
        prepared = prepare("mine.gin", as_it_is, plugins)
        assert prepared.list_warnings(prepared.schedule()) == []
        run = pggan_kit.train("mine.gin", [*SHORT, *own], plugins=plugins, run_dir="run")
        assert run.state.steps == 2 * len(run.schedule.stages) - 1


def test_hooks_of_the_guide_log_a_number_and_end_a_run(train: Callable[..., Any], tmp_path: Path) -> None:
    (code,) = blocks((DOCS / "guides/hooks.md").read_text(), "python")
    path = tmp_path / "good_enough.py"
    path.write_text(code)
    run = train(plugins=(str(path),), run_dir="run")
    weights = np.concatenate([weight.detach().double().flatten() for weight in run.state.generator.parameters()])
    assert run.stats[-1]["Weights/generator"] == pytest.approx(np.sqrt((weights**2).sum()))
    module = runpy.run_path(str(path))
    assert [module["should_end"]({"Metrics/FID": fid}) for fid in (9.9, 10.0)] == [True, None]
    assert module["should_end"]({}) is None


def test_page_on_the_structure_names_every_room() -> None:
    text = (DOCS / "house.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| .+ \|$", text, re.MULTILINE)
    assert sorted(rows) == sorted(room for floor in HOUSE for room in floor)


def test_paths_exist() -> None:
    folders = "pggan_kit|plugins|tests|docs|experiments|benchmarks|examples"
    # A path with a colon and a block behind it is a file that the reader writes.
    pattern = rf"`((?:{folders})/[\w./-]+)(?=[`: ])(?!`:\n\n```)"
    for page in [page for page in PAGES if page.name != "CONTRIBUTING.md"]:
        named = [path for path in re.findall(pattern, page.read_text()) if not re.search(r"\b(NAME|KIND)\b", path)]
        assert [path for path in named if not (ROOT / path).exists()] == [], page.name


def test_plans_of_the_page_on_ablations_can_be_run(tmp_path: Path) -> None:
    plan, factors, effects, changes, sources = blocks((DOCS / "ablations.md").read_text(), "gin")[:5]
    base = (ROOT / "experiments/mnist.gin").as_posix()
    plan = plan.replace("'mnist.gin'", f"'{base}'")
    (tmp_path / "mine.gin").write_text(plan)
    read, _ = read_plan(tmp_path / "mine.gin")
    assert [contrast.name for contrast in read.confirmatory] == ["hard - linear"]
    assert read.branch == 0 and read.shared == ["linear", "hard", "nudged"]  # what the page says of most switches
    assert [read.select_seeds("nudged"), read.select_seeds("hard")] == [[0, 1, 2], [0, 1, 2, 3, 4, 5]]

    # The folder is all that the sources lack here; the bundled digits are one split.
    bundled = sources.replace("\"datasets.MNIST.folder = 'FOLDER'\", ", "")
    for given, lacking in ((sources, "FOLDER"), (bundled, "split_seed needs a folder with the full IDX files")):
        (tmp_path / "mine.gin").write_text(plan + given)
        with pytest.raises(UserError, match=lacking):
            read_plan(tmp_path / "mine.gin")

    # Designs take the place of variants, contrasts and controls.
    head = re.sub(r"ablate\.variants = \{.*?^\}$", "", plan, flags=re.DOTALL | re.MULTILINE)
    head = re.sub(r"^ablate\.(contrasts|controls|seeds) .*", "", head, flags=re.MULTILINE)
    head += "\nablate.seeds = (0, 1, 2, 3, 4, 5, 6)\n"
    (tmp_path / "mine.gin").write_text(f"{head}{factors}\n{effects}")
    read, _ = read_plan(tmp_path / "mine.gin")
    assert list(read.variants) == ["soft+non_saturating", "soft+hinge", "hard+non_saturating", "hard+hinge"]
    assert [contrast.name for contrast in read.confirmatory] == ["switch: hard - soft", "switch x loss"]
    (tmp_path / "mine.gin").write_text(f"{head}{changes}")
    read, _ = read_plan(tmp_path / "mine.gin")
    assert list(read.variants) == ["all", "without_cosine", "without_blur", "without_small_batches"]
    assert len(read.confirmatory) == 3


def test_page_on_ablations_explains_every_column_and_verdict_and_file() -> None:
    text = (DOCS / "ablations.md").read_text()
    explained = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    results = made_up_ablation.make_results({"a": 0.0, "b": 0.5, "c": 0.0})
    analysis = analyse_results(made_up_ablation.make_plan(averages=["short"], looks=[8, 10]), results)
    columns = {str(column.header) for table in build_tables(analysis) for column in table.columns} - {"FID"}
    assert len(columns) > 12
    assert columns <= set(explained)
    for differs in (0.01, 0.9):
        for same in (0.01, 0.9):
            entry = {"role": "confirmatory", "p": differs, "equivalence": same, "ranks": None}
            add_verdicts([entry])
            answers = ["yes" if p < 0.05 else "no" for p in (differs, same)]
            assert f"\n| {entry['verdict']} | {answers[0]} | {answers[1]} |" in text
    shipped = {file.name for file in (ROOT / "experiments/ablations").glob("*.gin")}
    shipped -= {"base.gin", "common.gin", "demo_base.gin"}
    assert {name for name in explained if name.endswith(".gin")} == shipped


def test_page_on_ablations_names_the_fewest_seeds() -> None:
    text = (DOCS / "ablations.md").read_text()
    rows = re.findall(r"^\| (\d+)(?: (?:or|to) (\d+))? \| (\d+) \|$", text, re.MULTILINE)
    listed = {count: int(n) for low, high, n in rows for count in range(int(low), int(high or low) + 1)}
    # Independent of the code: all pairs agree with probability 2 / 2^n; Holm multiplies it by the number of contrasts.
    fewest = {count: next(n for n in range(1, 20) if count * 2 / 2**n < 0.05) for count in range(1, 13)}
    assert listed == fewest == {count: count_pairs_needed(count) for count in range(1, 13)}


def test_both_tutorials_tell_the_same() -> None:
    english, chinese = ((DOCS / f"tutorial{suffix}.md").read_text() for suffix in ("", ".zh"))
    for language in ("sh", "python", r"\{literalinclude\} \S+"):
        assert blocks(english, language) == blocks(chinese, language) != []
    assert len(re.findall("^## ", english, re.MULTILINE)) == len(re.findall("^## ", chinese, re.MULTILINE))


def test_chinese_pages_use_full_width_punctuation() -> None:
    pages = sorted(DOCS.rglob("*.zh.md"))
    assert pages
    for page in pages:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        # Code in a sentence counts as a word of it; a link's address is not read.
        text = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "字", text))
        assert re.findall(r".*[\u4e00-\u9fff] ?[,.:;!?()].*|.*[,.:;!?()] ?[\u4e00-\u9fff].*", text) == [], page.name


def test_cookbook_loads_each_plugin_that_it_writes() -> None:
    for name, section in recipes():
        plugins = [block for block in blocks(section, "python") if "def components" in block]
        named = re.findall(r"^`(\w+\.py)`: ", section, re.MULTILINE)
        loaded = [words[words.index("--plugin") + 1] for words in commands(section) if "--plugin" in words]
        assert named == loaded and len(loaded) == len(plugins), name


def test_every_command_of_the_tutorial_works(
    cli: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_memory_count: None,
    few_calibrations: None,
) -> None:
    """With short phases, few digits and narrow networks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    leave_out_plots(monkeypatch)
    draw_few_pictures(monkeypatch)
    text = (DOCS / "tutorial.md").read_text()
    (tmp_path / "cosine.py").write_text(blocks(text, "python")[0])
    few = ["observers.Samples.count = 4", "observers.Growth.count = 4", "datasets.MNIST.limit = 500"]
    few.append("schedule.batch_size = 8")
    nets = ("generator_channels", "discriminator_channels")
    for words in commands(text):
        if words[0] in ("train", "plan"):
            narrow = ["architectures.PGGAN.channels = 8"]
            if "tutorial" in words[1]:
                narrow = [f"architectures.Tutorial.{net} = 8" for net in nets]
            words += [word for binding in (*SHORT, *few, *narrow) for word in ("-b", binding)]
        result = cli(*words)
        assert result.exit_code == 0, (words, result.output, result.stderr)
    assert (tmp_path / "stairs-or-ramp.html").exists() and (tmp_path / "runs/tutorial/growth.gif").exists()


def test_picture_is_sound_and_described() -> None:
    picture = ET.parse(DOCS / "run.svg").getroot()
    assert picture.find("{http://www.w3.org/2000/svg}desc") is not None


def test_pages_build_without_a_warning(tmp_path: Path) -> None:
    """Links, includes and cross-references among them: Sphinx turns each that leads nowhere into an error here."""
    # `make docs` writes them as well, which takes as long as all before it, and the builder "dummy" does not.
    words = ["-q", "-W", "--keep-going", "-n", "-b", "dummy", DOCS, tmp_path / "none", "-d", tmp_path / "trees"]
    build = Fork(lambda: sys.exit(sphinx_build.main([str(word) for word in words])))
    assert build.wait() == 0, build.read_errors()
    assert b"Staircase" in (tmp_path / "trees/reference/parts.doctree").read_bytes()


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_pages_of_released_versions_are_built_beside_those_of_the_checkout(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "scripts/build_doc_versions.py"))

    def run_git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    run_git("init")
    (tmp_path / "docs").mkdir()
    for version in ("0.9.0", "0.10.0", "1.0.0rc1", "unreleased"):
        # The pages of this repository say only what they are of, and where their versions are.
        rule = f"\t@mkdir -p docs/_build && echo {version} $$DOCS_VERSIONS > docs/_build/index.html"
        (tmp_path / "Makefile").write_text(f".PHONY: docs\ndocs:\n{rule}\n")
        run_git("add", "Makefile")
        run_git("commit", "-m", version)
        if version != "unreleased":
            run_git("tag", f"v{version}")

    script["main"](tmp_path)
    build = tmp_path / "docs/_build"
    pages = {page.relative_to(build).as_posix(): page.read_text() for page in build.rglob("index.html")}
    assert pages == {
        "index.html": "unreleased versions.html\n",
        "v0.10.0/index.html": "0.10.0 ../versions.html\n",
        "v0.9.0/index.html": "0.9.0 ../versions.html\n",
    }
    listed = re.findall(r'href="(.+?)"', (build / "versions.html").read_text())
    assert listed == ["index.html", "v0.10.0/index.html", "v0.9.0/index.html"]
