"""The draft of a paper for the Journal of Open Source Software: its form, its references, and what it says is there."""

from __future__ import annotations

import re

import yaml
from helpers.paths import ROOT

from pggan_kit.components import KINDS

TEXT = (ROOT / "paper/paper.md").read_text(encoding="utf-8")
_, METADATA, BODY = TEXT.split("---\n", 2)
ENTRIES = re.split(r"^@", (ROOT / "paper/paper.bib").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]


def test_its_metadata_are_those_that_the_journal_asks_for() -> None:
    metadata = yaml.safe_load(METADATA)
    assert set(metadata) == {"title", "tags", "authors", "affiliations", "date", "bibliography"}
    indices = {affiliation["index"] for affiliation in metadata["affiliations"]}
    assert {author["affiliation"] for author in metadata["authors"]} <= indices
    assert (ROOT / "paper" / metadata["bibliography"]).exists()


def test_its_sections_and_its_length() -> None:
    sections = re.findall(r"^# (.+)$", BODY, re.MULTILINE)
    assert sections[:4] == ["Summary", "Statement of need", "State of the field", "Software design"]
    assert {"Research impact statement", "AI usage disclosure"} < set(sections)
    assert 750 <= len(BODY.split()) <= 1750


def test_each_citation_has_its_entry_and_each_entry_is_cited() -> None:
    keys = [re.match(r"\w+\{(\w+),", entry)[1] for entry in ENTRIES]  # type: ignore[index]
    cited = set(re.findall(r"@([a-z]+\w*)", re.sub(r"```.*?```|`[^`]*`", "", BODY, flags=re.DOTALL)))
    assert sorted(keys) == sorted(cited)
    for entry in ENTRIES:
        # The journal asks for DOIs; a program that has none is cited by its repository.
        assert re.search(r"doi = \{10\.\d{4,}/\S+\},|\\url\{https://github\.com/", entry), entry
        arxiv = re.search(r"doi = \{10\.48550/arXiv\.(\S+)\}", entry)
        assert arxiv is None or f"eprint = {{{arxiv[1]}}}" in entry, entry
        assert "title = {" in entry and "author = {" in entry


def test_the_answer_of_its_ablation_is_that_of_the_results() -> None:
    results = (ROOT / "experiments/results/README.md").read_text(encoding="utf-8")
    in_short = re.search(r"^\*\*In short\.\*\* (.+?)\n\n", results, re.MULTILINE | re.DOTALL)
    assert in_short is not None
    answer = " ".join(in_short[1].split())
    told = " ".join(BODY.split())
    for figures in (r"\+\d+ % \[\+\d+, \+\d+ %\] in \d+ new pairs", r"undecided: between -\d+ and \+\d+ %"):
        found = re.search(figures, answer)
        assert found is not None and found[0] in told


def test_what_it_says_is_there() -> None:
    assert f"{('seventeen', 'eighteen', 'nineteen')[len(KINDS) - 17]} kinds" in BODY
    for name in re.findall(r"`(experiments/[\w/.]+)`", BODY):
        assert (ROOT / name).exists(), name
