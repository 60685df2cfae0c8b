"""What surrounds the code: forms, hooks and pages that contributors meet first say what is there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.paths import ROOT

from pggan_kit.cli import main

FORMS = sorted(path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "ROADMAP.md", "CODE_OF_CONDUCT.md", "SECURITY.md")]
PAGES.append(ROOT / ".github/PULL_REQUEST_TEMPLATE.md")
FIELDS = {"markdown", "input", "textarea", "dropdown", "checkboxes"}


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_ask_for_debug_info(path: Path) -> None:
    form = read_yaml(path)
    assert form["name"] and form["description"]
    assert {field["type"] for field in form["body"]} <= FIELDS
    named = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(set(named)) == len(named)
    (asked,) = [field for field in form["body"] if field.get("id") == "debug-info"]
    assert "`pggan-kit --debug-info`" in asked["attributes"]["label"]
    assert "--debug-info" in {option for param in main.params for option in param.opts}


def test_there_is_a_form_for_each_kind_of_issue() -> None:
    assert [path.stem for path in FORMS] == ["bug", "feature", "plugin"]
    assert read_yaml(ROOT / ".github/ISSUE_TEMPLATE/bug.yml")["body"][2]["validations"] == {"required": True}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_the_repository_has_one_address() -> None:
    address = read_yaml(ROOT / "CITATION.cff")["repository-code"]
    pages = [*PAGES, *ROOT.glob("docs/**/*.md"), ROOT / "setup.cfg", *ROOT.glob(".github/**/*.*")]
    named = set()
    for page in pages:
        named |= set(re.findall(r"https://github\.com/[\w-]+/pggan_kit\b", page.read_text(encoding="utf-8")))
    assert named == {address}


def test_hooks_run_the_linters_of_the_tested_set() -> None:
    (repository,) = read_yaml(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local", "a hook from elsewhere has a version of its own"
    hooks = {hook["id"]: hook for hook in repository["hooks"]}
    assert {name for name, hook in hooks.items() if hook["entry"].startswith(".venv/bin/")} == {"ruff", "mypy"}
    for name, hook in hooks.items():
        if name not in ("ruff", "mypy"):
            assert re.fullmatch(r"pre-commit-hooks==[\d.]+", *hook["additional_dependencies"]), name


def test_the_image_is_made_of_what_is_locked_and_there() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert "pip install --no-cache-dir --require-hashes --requirement /opt/pggan_kit/requirements-locked.txt" in text
    copied = [name for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for name in line.split()[:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    # What is copied is what the context has.
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) == allowed
    assert "USER 1000" in text, "not root"


def test_the_devcontainer_runs_a_target_of_make() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert container["postCreateCommand"].removeprefix("make ") in targets
    image = (ROOT / "Dockerfile").read_text()
    assert re.search(r"FROM python:3\.11-", image) and "3.11" in container["image"], "the Python that is tested most"
