"""The command `explore`, which serves a page in the browser."""

from __future__ import annotations

from pathlib import Path

import click

from pggan_kit.cli.base import PATH, average_option, main, no_plugin_option, print_message, recorded_plugin_option


@main.command()
@click.argument("run", type=PATH)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; others can reach 0.0.0.0.")
@click.option(
    "--port",
    default=7860,
    show_default=True,
    type=click.IntRange(min=0, max=65535),
    help="Port of the page; 0 for a free one.",
)
@average_option
@recorded_plugin_option
@no_plugin_option
def explore(run: Path, host: str, port: int, average: str | None, plugins: tuple[str, ...]) -> None:
    """Explore a run's generator in the browser: its stages and fades, latents, classes and styles.

    RUN may be a file or a folder that `export` wrote, which has one place of the growth. The page needs no network, and
    the extra `explore`.
    """
    from pggan_kit.api.explore_page import serve_page

    def say(address: str) -> None:
        print_message(f"{run} is at {address} until this command is stopped with Ctrl-C")

    serve_page(run, host=host, port=port, average=average, plugins=plugins, say=say)
