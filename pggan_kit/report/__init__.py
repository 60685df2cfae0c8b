"""Reports: one self-contained HTML file about a run, about several, or about an ablation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.errors import RunError
from pggan_kit.report import ablation_sections as ablations
from pggan_kit.report import film
from pggan_kit.report import run_sections as runs
from pggan_kit.report.ablation_record import is_ablation, read_ablation
from pggan_kit.report.latex import latex
from pggan_kit.report.page import Section, render, require_libraries
from pggan_kit.report.pictures import draw_run
from pggan_kit.report.plots import COLUMN, rendered
from pggan_kit.report.records import RunRecord, named_apart, read_run
from pggan_kit.system.files import write_atomically
from pggan_kit.version import __version__

__all__ = ["write_report"]

Say = Callable[[str], None]


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
        folders: run directories, or one folder of `pggan-kit ablate`.
        out: the HTML file.
        figures: a folder for the plots as PDF at column width, and the tables as LaTeX.
        plugins: instead of the plugin files that the runs used.
        say: told in one sentence of what is left out because it is damaged.

    Raises:
        RunError: no run, one without a tick, one named twice, damaged files, or a target that cannot be written.
        UserError: jinja2 or matplotlib is missing.
    """
    require_libraries()
    paths = [Path(folder) for folder in folders]
    for place, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:place]]:
            raise RunError(f"report: {path} is named twice")
    if any(map(is_ablation, paths)):
        if len(paths) > 1:
            raise RunError("report: name one ablation, or runs")
        title, lead, sections = _of_ablation(paths[0], say, plugins)
    else:
        records = [read_run(*pair) for pair in zip(paths, named_apart(paths), strict=True)]
        title, lead, sections = _of_runs(records, say, plugins)
    html = render(title, f"{lead} Drawn by pggan_kit {__version__}.", sections)
    _write(Path(out), html.encode())
    if figures is not None:
        _write_figures(Path(figures), sections)


def _of_runs(records: Sequence[RunRecord], say: Say, plugins: Sequence[Any]) -> tuple[str, str, list[Section]]:
    pictures = [draw_run(run, say, plugins) for run in records]
    pair = film.side_by_side(records[:2], pictures[:2]) if len(records) > 1 else None
    sections = [
        runs.overview(records),
        runs.film_section(pair, records[:2]),
        runs.grids_section(records, pictures),
        runs.fades_section(records, pictures),
        runs.curves_section(records, pictures),
        runs.cost_section(records),
        runs.transitions_section(records),
        runs.configuration_section(records),
    ]
    what = "A run of a progressively grown GAN." if len(records) == 1 else f"{len(records)} runs, compared."
    return ", ".join(run.name for run in records), what, sections


def _of_ablation(folder: Path, say: Say, plugins: Sequence[Any]) -> tuple[str, str, list[Section]]:
    ablation = read_ablation(folder)
    shown, pair = ablation.one_of_each(), ablation.contrasted()
    pictures = {run.name: draw_run(run, say, plugins) for run in [*shown, *pair]}
    moving = film.side_by_side(pair, [pictures[run.name] for run in pair]) if pair else None
    result, seeds, plan = ablations.result_sections(ablation)
    sections = [
        result,
        runs.film_section(moving, pair),
        ablations.variants_section(shown, [pictures[run.name] for run in shown]),
        seeds,
        runs.fades_section(shown, [pictures[run.name] for run in shown]),
        runs.transitions_section(shown),
        plan,
    ]
    counts = f"{len(ablation.variants)} variants, {len({row['seed'] for row in ablation.results})} seeds."
    return f"Ablation: {ablation.name}", counts, sections


def _write_figures(folder: Path, sections: Sequence[Section]) -> None:
    for section in sections:
        for figure in (figure for group in section.groups for figure in group.figures):
            if figure.draw is not None:
                _write(folder / f"{figure.name}.pdf", rendered(figure.draw, "pdf", COLUMN))
        for table in section.tables:
            if table.name:
                _write(folder / f"{table.name}.tex", latex(table).encode())


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error
    write_atomically(path, content)
