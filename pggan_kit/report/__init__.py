"""Reports: one self-contained HTML file about a run, about several, or about an ablation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pggan_kit.errors import RunError, require_list
from pggan_kit.report import ablation_estimates, ablation_sections, run_sections
from pggan_kit.report.ablation_record import is_ablation, read_ablation, read_analysis
from pggan_kit.report.coherence_section import coherence_section
from pggan_kit.report.curves_section import curves_section
from pggan_kit.report.factors_section import factors_section
from pggan_kit.report.film import can_use_samples, make_film
from pggan_kit.report.growth_section import growth_section
from pggan_kit.report.later_analyses_section import later_analyses_section
from pggan_kit.report.latex import format_latex
from pggan_kit.report.page import Section, render_page, require_libraries
from pggan_kit.report.plots import COLUMN, render_plot
from pggan_kit.report.run_groups import MOST_DRAWN, RunGroup, group_runs, has_several, isolate_runs
from pggan_kit.report.run_pictures import RunPictures, draw_run
from pggan_kit.report.run_record import NoTickError, RunRecord, name_runs, read_run
from pggan_kit.runs.targets import require_target_outside_runs
from pggan_kit.system.activities import report_activity, track_items
from pggan_kit.system.files import require_replaceable, write_atomically
from pggan_kit.version import __version__

__all__ = ["write_report"]

Say = Callable[[str], None]

DRAWING = "drawing images of runs"
"""What is done while each run's generators draw."""

MOST_STRIPS = 16
"""Maximum of strips through fades, except that the runs in the film have all of theirs."""

MOST_NAMED = 4
"""Maximum of runs that a page's title names; of more it says how many there are."""


@dataclass(frozen=True)
class _Content:
    """The content of a report."""

    title: str
    lead: str
    sections: list[Section]


def write_report(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    figures: str | Path | None = None,
    plugins: Sequence[Any] = (),
    say: Say = warnings.warn,
) -> None:
    """Write a report of runs, or of one ablation.

    Args:
        folders: Run directories, or one folder of `pggan-kit ablate`.
        out: The HTML file.
        figures: Folder for the plots as PDF at column width, and the tables as LaTeX.
        plugins: Plugins to use instead of the plugin files that the runs used.
        say: Function that is given a sentence about what is left out: it is damaged, or has no tick.

    Raises:
        RunError: A folder holds no run, a run is named twice, no run has a tick, files are damaged, or a target
            cannot be written.
        UserError: jinja2 or matplotlib is missing.
    """
    require_libraries()
    require_list("folders", folders)
    paths = [Path(folder) for folder in folders]
    _require_different(paths)

    # Targets are checked before anything is drawn, which takes long.
    require_target_outside_runs("--out", Path(out))
    require_replaceable(Path(out))
    if figures is not None:
        require_target_outside_runs("--figures", Path(figures))

    if any(is_ablation(path) for path in paths):
        if len(paths) > 1:
            raise RunError("report: name one ablation, or runs")
        content = _draw_ablation(paths[0], say, plugins)
    else:
        content = _draw_runs(_read_runs(paths, say), say, plugins)

    # The page is complete before anything is written.
    with report_activity("drawing curves and tables"):
        html = render_page(content.title, f"{content.lead} Drawn by pggan_kit {__version__}.", content.sections)
    _write_file(Path(out), html.encode())
    if figures is not None:
        with report_activity(f"writing figures to {figures}"):
            _write_figures(Path(figures), content.sections)


def _require_different(paths: Sequence[Path]) -> None:
    seen = set()
    for path in paths:
        if path.resolve() in seen:
            raise RunError(f"report: {path} is named twice")
        seen.add(path.resolve())


def _read_runs(paths: Sequence[Path], say: Say) -> list[RunRecord]:
    """Read runs. One of several that has no tick is left out, since a sweep has runs that failed at once."""
    named = list(zip(paths, name_runs(paths), strict=True))
    records = []
    for path, name in track_items(named, "reading", len(named), "runs"):
        try:
            records.append(read_run(path, name))
        except NoTickError as error:
            if len(paths) == 1:
                raise
            say(f"left out: {error}")
    if not records:
        raise RunError(f"none of the {len(paths)} runs has a tick yet, so there is nothing to report")
    return records


def _draw_runs(records: Sequence[RunRecord], say: Say, plugins: Sequence[Any]) -> _Content:
    groups = group_runs(records)
    drawn = groups[:MOST_DRAWN]
    runs = [group.shown for group in drawn]
    in_film = runs[:2] if len(runs) > 1 else []
    pictures = _draw_pictures(runs, in_film, say, plugins)

    # Half of a film is too narrow for a name that says which of how many runs it is.
    film_runs = [replace(group.shown, name=group.name) for group in drawn[: len(in_film)]]
    film = None
    if film_runs:
        film = make_film(film_runs, pictures[:2])

    # Sections without content are left out of the page.
    sections = [
        run_sections.overview_section(groups),
        run_sections.film_section(film, film_runs),
        run_sections.grids_section(runs, pictures),
        run_sections.reals_section(runs),
        run_sections.fades_section(runs, pictures),
        coherence_section(groups, pictures),
        curves_section(groups, pictures),
        run_sections.cost_section(groups),
        run_sections.transitions_section(groups),
        run_sections.every_run_section(groups, drawn),
        run_sections.configuration_section(groups),
    ]
    # Of many runs, what is compared is seen first.
    if has_several(groups) or len(groups) > MOST_DRAWN:
        sections.insert(1, sections.pop(6))
    return _Content(_state_title(groups), _state_lead(groups), sections)


def _draw_pictures(
    runs: Sequence[RunRecord], in_film: Sequence[RunRecord], say: Say, plugins: Sequence[Any]
) -> list[RunPictures]:
    """Draw runs, as much of each as the page shows."""
    # Only a film that cannot be made of `samples/` shows the beginnings of stages.
    needs_beginnings = bool(in_film) and not can_use_samples(in_film)
    names_in_film = {run.name for run in in_film}

    pictures = []
    strips = 0
    for run in track_items(runs, DRAWING, len(runs), "runs"):
        is_in_film = run.name in names_in_film
        fades = sum(stage.fade_end is not None for stage in run.stages)
        has_strips = is_in_film or not strips or strips + fades <= MOST_STRIPS
        drawn = draw_run(run, say, plugins, beginnings=needs_beginnings and is_in_film, strips=has_strips)
        strips += len(drawn.fades)
        pictures.append(drawn)
    return pictures


def _state_title(groups: Sequence[RunGroup]) -> str:
    runs = sum(len(group.runs) for group in groups)
    if has_several(groups):
        return f"{runs} runs in {len(groups)} group{'s' if len(groups) > 1 else ''}"
    if runs > MOST_NAMED:
        return f"{runs} runs"
    return ", ".join(group.name for group in groups)


def _state_lead(groups: Sequence[RunGroup]) -> str:
    if has_several(groups):
        listed = "; ".join(group.label for group in groups[:MOST_DRAWN])
        if len(groups) > MOST_DRAWN:
            listed += f"; and {len(groups) - MOST_DRAWN} more groups"
        return f"{listed}."
    if len(groups) > 1:
        return f"{len(groups)} runs, compared."
    return "A run of a progressively grown GAN."


def _draw_ablation(folder: Path, say: Say, plugins: Sequence[Any]) -> _Content:
    ablation = read_ablation(folder)
    analysis = read_analysis(ablation)
    shown = ablation.pick_one_of_each()
    pair = ablation.pick_contrasted_pair()

    # A run that is both among the variants and in the film is drawn once.
    drawn = {run.name: run for run in [*shown, *pair]}
    pictures = dict(zip(drawn, _draw_pictures(list(drawn.values()), pair, say, plugins), strict=True))
    shown_pictures = [pictures[run.name] for run in shown]
    film = None
    if pair:
        film = make_film(pair, [pictures[run.name] for run in pair])

    # The answer first, then what it depends on, then pictures, and the plan last.
    sections = [
        ablation_sections.result_section(ablation, analysis),
        factors_section(ablation),
        ablation_estimates.looks_section(analysis),
        ablation_estimates.robustness_section(analysis),
        ablation_estimates.estimates_section(ablation, analysis),
        later_analyses_section(ablation),
        run_sections.film_section(film, pair),
        ablation_sections.variants_section(shown, shown_pictures),
        ablation_estimates.bands_section(ablation),
        ablation_sections.seeds_section(ablation),
        growth_section(ablation),
        run_sections.reals_section(shown),
        run_sections.fades_section(shown, shown_pictures),
        coherence_section(isolate_runs(shown), shown_pictures),
        run_sections.transitions_section(isolate_runs(shown)),
        ablation_sections.plan_section(ablation),
    ]
    seeds = {row["seed"] for row in ablation.results}
    lead = f"{len(ablation.variants)} variants, {len(seeds)} seeds."
    return _Content(f"Ablation: {ablation.name}", lead, sections)


def _write_figures(folder: Path, sections: Sequence[Section]) -> None:
    """Write plots as PDF and tables as LaTeX, those of one name under numbers."""
    taken: set[str] = set()
    for section in sections:
        for group in section.groups:
            for figure in group.figures:
                if figure.draw is not None:
                    path = folder / _choose_file_name(figure.name or "figure", ".pdf", taken)
                    _write_file(path, render_plot(figure.draw, "pdf", COLUMN))
        for table in section.tables:
            if table.name:
                path = folder / _choose_file_name(table.name, ".tex", taken)
                _write_file(path, format_latex(table).encode())


def _choose_file_name(stem: str, suffix: str, taken: set[str]) -> str:
    """Return a file's name, with a number where it is taken; add it to those that are."""
    name = f"{stem}{suffix}"
    number = 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}{suffix}"
    taken.add(name)
    return name


def _write_file(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error
    write_atomically(path, content)
