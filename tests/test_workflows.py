"""The workflows that GitHub runs: pinned, with the least permissions, and made of commands that exist here."""

from __future__ import annotations

import re
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.paths import ROOT

from pggan_kit.scaffold import write_plugin

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")

WRITING = {
    ("release", "publish"): {"id-token": "write", "attestations": "write"},
    ("pages", "deploy"): {"pages": "write", "id-token": "write"},
    ("benchmark", "history"): {"contents": "write"},
}
"""The jobs that may change anything, and what."""


def read_workflow(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def list_jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path in WORKFLOWS:
        for name, job in read_workflow(path)["jobs"].items():
            yield path.stem, name, job


JOBS = list(list_jobs())
STEPS = [(f"{workflow}.{name}", step) for workflow, name, job in JOBS for step in job["steps"]]


def test_there_is_a_workflow_for_each_promise() -> None:
    assert [path.stem for path in WORKFLOWS] == ["benchmark", "nightly", "pages", "release", "test"]


def test_actions_are_pinned_by_commit_and_say_their_version() -> None:
    used = [line for path in WORKFLOWS for line in path.read_text().splitlines() if re.search(r"\buses:", line)]
    assert len(used) == sum("uses" in step for _, step in STEPS)
    commits: dict[str, set[str]] = {}
    for line in used:
        match = re.fullmatch(r"\s+(?:- )?uses: (\S+)@(\S+) # (v\d+\.\d+\.\d+)", line)
        assert match and PINNED.fullmatch(f"{match[1]}@{match[2]}"), line
        commits.setdefault(match[1], set()).add(match[2])
    assert {name: len(pins) for name, pins in commits.items() if len(pins) > 1} == {}, "one version of each action"


def test_jobs_have_the_permissions_that_they_need_and_no_others() -> None:
    for path in WORKFLOWS:
        assert read_workflow(path)["permissions"] == {}, path.name
    for workflow, name, job in JOBS:
        expected = WRITING.get((workflow, name), {"contents": "read"})
        assert job["permissions"] == expected, f"{workflow}.{name}"
        assert 0 < job["timeout-minutes"] <= 360, f"{workflow}.{name}"


def test_workflows_of_new_plugins_are_pinned_as_these_are(tmp_path: Path) -> None:
    files, _ = write_plugin("my-loss", "losses", tmp_path)
    written = [file for file in files if file.suffix == ".yml"]
    assert [file.relative_to(tmp_path).as_posix() for file in written] == [
        "my-loss/.github/workflows/test.yml",
        "my-loss/.github/workflows/release.yml",
    ]
    pins = {line.strip(" -") for path in WORKFLOWS for line in path.read_text().splitlines() if "uses:" in line}
    for file in written:
        workflow = read_workflow(file)
        assert workflow["permissions"] == {}
        used = {line.strip(" -") for line in file.read_text().splitlines() if "uses:" in line}
        assert used <= pins, "the pins of this repository's workflows"
        steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
        assert all("${{" not in step.get("run", "") for step in steps)
    allowed = {name: job["permissions"] for name, job in read_workflow(written[1])["jobs"].items()}
    assert allowed == {"build": {"contents": "read"}, "publish": {"id-token": "write"}}


def test_no_event_lets_code_of_strangers_run_with_permissions() -> None:
    for path in WORKFLOWS:
        # YAML 1.1 reads the key `on` as true.
        events = set(read_workflow(path)[True])
        assert events <= {"push", "pull_request", "schedule", "workflow_dispatch"}, path.name


def test_steps_keep_no_credentials_and_run_no_text_from_outside() -> None:
    for place, step in STEPS:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False, place
        assert "${{" not in step.get("run", ""), f"{place}: pass it through env"


def test_make_targets_and_scripts_of_steps_exist() -> None:
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = "\n".join(step.get("run", "") for _, step in STEPS)
    named = set(re.findall(r"\bmake ([a-z][\w-]*)", commands))
    assert {"lint", "test", "docs", "test-browser", "test-slow", "lint-ci"} <= named <= targets
    for name in re.findall(r"(?:scripts|benchmarks)/[\w./]+", commands):
        assert (ROOT / name).exists(), name


def test_each_python_and_system_is_tested() -> None:
    jobs = {name: job for workflow, name, job in JOBS if workflow == "test"}
    matrix = jobs["newest"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    assert matrix["system"] == jobs["oldest"]["strategy"]["matrix"]["system"]
    assert {name.partition("-")[0] for name in matrix["system"]} == {"ubuntu", "macos", "windows"}


def test_a_release_publishes_what_was_tested() -> None:
    jobs = {name: job for workflow, name, job in JOBS if workflow == "release"}
    assert jobs["test"]["needs"] == "build" and jobs["publish"]["needs"] == "test"
    assert jobs["publish"]["environment"] == "pypi"
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text(), "PyPI trusts the workflow"
    # What publishes runs no code of the checkout.
    assert all("run" not in step for step in jobs["publish"]["steps"])


@pytest.mark.parametrize(
    ("tag", "heading", "problem"),
    [
        ("v0.1.0", "## 0.1.0 (2026-12-01)", None),
        ("v0.2.0", "## 0.1.0 (2026-12-01)", "the tag is v0.2.0"),
        ("v0.1.0", "## Unreleased (0.1.0)", "CHANGELOG.md has no heading"),
    ],
)
def test_a_tag_that_the_sources_contradict_is_refused(
    tag: str, heading: str, problem: str | None, tmp_path: Path
) -> None:
    check = runpy.run_path(str(ROOT / "scripts/check_release.py"))
    (tmp_path / "pggan_kit").mkdir()
    (tmp_path / "pggan_kit/version.py").write_text('__version__ = "0.1.0"\n')
    shutil.copy(ROOT / "CITATION.cff", tmp_path)
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n")
    problems = check["find_problems"](tag, tmp_path)
    assert [text for text in problems if problem is None or not text.startswith(problem)] == []
    assert bool(problems) == (problem is not None)
