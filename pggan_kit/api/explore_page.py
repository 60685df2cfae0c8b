"""Serve the page of `pggan-kit explore`: on this machine alone unless asked otherwise, and with nothing from elsewhere.

Gradio is imported when a page is made, and not before.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL.PngImagePlugin import PngInfo

from pggan_kit.api.explorer import END, FADE, MOMENTS, MOST_IMAGES, SHOWN, Explorer, View, open_explorer
from pggan_kit.errors import RunError, SettingError, UserError
from pggan_kit.system.json_text import json_text

HOST = "127.0.0.1"
"""Address at which only this machine reaches the page."""

PORT = 7860
"""Port of the page."""

QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""Variables of the environment that keep Gradio and its libraries from reporting that they are used."""

IN_TURN = "all in turn"
"""Choice of all classes, instead of one."""

SHARE = {"minimum": 0, "maximum": 1, "step": 0.01}
"""Range of a slider that sets a share."""

KEPT_PICTURES = 100
"""Number of the last pictures whose files are kept for those who save them."""

CACHE_SECONDS = 600
"""Seconds after which Gradio removes its own copies of pictures; it removes all of them when the page is stopped."""

CLOSING_SECONDS = 1
"""Maximum seconds that open pages hold up the end."""


def serve_page(
    run: Path,
    *,
    host: str = HOST,
    port: int = PORT,
    average: str | None = None,
    plugins: Sequence[Any] = (),
    say: Callable[[str], None] = print,
) -> None:
    """Serve a page that explores a run or a file, until the process is interrupted.

    Args:
        run, average, plugins: see `open_explorer`.
        host: address or name to listen at.
        port: its port; 0 for a free one.
        say: receiver of the page's address, once it can be opened.

    Raises:
        RunError: Gradio is missing, the port is taken, or see `open_explorer`.
    """
    # What fails at once is tried before the generators are restored, which may take long.
    with tempfile.TemporaryDirectory(prefix="pggan_kit_explore_") as folder, contextlib.ExitStack() as stack:
        gradio = import_gradio(Path(folder))
        listener = stack.enter_context(open_socket(host, port))
        explorer = open_explorer(run, average, plugins)
        page = build_page(gradio, explorer, run.resolve().name, Path(folder))
        app = importlib.import_module("fastapi").FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        gradio.mount_gradio_app(
            app,
            page,
            path="/",
            server_name=host,
            server_port=listener.getsockname()[1],
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
        )

        uvicorn = importlib.import_module("uvicorn")
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=CLOSING_SECONDS)
        say(describe_address(listener))
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:  # how a page is stopped
            return


def import_gradio(cache: Path) -> Any:
    """Return Gradio, which then reports nothing to anybody.

    Args:
        cache: folder for its copies of pictures. Its own choice is one folder for all users of a machine, which the
            first of them owns.

    Raises:
        RunError: it is missing.
    """
    os.environ.update(QUIET, GRADIO_TEMP_DIR=str(cache))
    try:
        return importlib.import_module("gradio")
    except ImportError as error:
        raise RunError(f"the page needs the library `gradio` ({error}): pip install 'pggan_kit[explore]'") from error


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address, which no other process can take any more.

    Raises:
        RunError: there is no such address here, or the port is taken or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:  # the second of what can be no name of a host
        raise RunError(f"--host {host}: there is no such address ({error}): 127.0.0.1 is this machine") from error
    try:
        # The port of a page that was stopped a moment ago may be used again.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        raise RunError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror}): name another port, or 0 "
            "for a free one"
        ) from error
    return listener


def describe_address(listener: socket.socket) -> str:
    """Return the address of a page, as browsers take it."""
    host, port = listener.getsockname()[:2]
    if listener.family == socket.AF_INET6:
        host = f"[{host}]"
    return f"http://{host}:{port}/"


def build_page(gradio: Any, explorer: Explorer, title: str, folder: Path) -> Any:
    """Return the page as Gradio's blocks.

    Args:
        gradio: the library.
        explorer: what draws the pictures.
        title: title of the page, and beginning of the names of saved pictures.
        folder: folder for the files of pictures.
    """
    painter = Painter(explorer, title, folder)
    cleaning = (CACHE_SECONDS, CACHE_SECONDS)
    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=cleaning, fill_width=True) as page:
        # Controls on the left, and the picture on the right with what it shows in words.
        gradio.Markdown(f"# {title}")
        with gradio.Row():
            with gradio.Column(scale=2, min_width=320):
                controls = _build_controls(gradio, explorer)
            with gradio.Column(scale=3, min_width=480):
                outputs = _build_outputs(gradio)

        _draw_on_changes(gradio, page, painter, controls, outputs)
        _disable_idle_controls(gradio, page, explorer, controls)
    return page


def _build_outputs(gradio: Any) -> list[Any]:
    """Return what a view is shown in: the picture, its words, and the button that saves it."""
    picture = gradio.Image(
        show_label=False,
        type="filepath",
        format="png",
        interactive=False,
        # Gradio's own button to share a picture would send it away.
        buttons=["fullscreen"],
        elem_classes=["picture"],
    )
    words = gradio.Markdown(elem_id="words")
    return [picture, words, gradio.DownloadButton("Save this picture", elem_id="save")]


def _draw_on_changes(
    gradio: Any, page: Any, painter: Painter, controls: Mapping[str, Any], outputs: Sequence[Any]
) -> None:
    """Draw another picture at every change of a control, and the first one when the page is loaded."""

    def draw(**values: Any) -> tuple[str, str, str]:
        try:
            path, described = painter.paint(values)
        except (SettingError, UserError) as error:
            raise gradio.Error(str(error), print_exception=False) from error
        return str(path), described, str(path)

    gradio.on(
        [page.load, *(control.change for control in controls.values())],
        draw,
        inputs_kwargs=controls,
        outputs=outputs,
        # While a slider moves, places that were passed already are left out.
        trigger_mode="always_last",
        show_progress="hidden",
    )


def _disable_idle_controls(gradio: Any, page: Any, explorer: Explorer, controls: Mapping[str, Any]) -> None:
    """Let nobody move the controls of the moment and of alpha where they mean nothing at a stage."""

    def adapt(stage: int, moment: str) -> tuple[Any, Any]:
        generators = explorer.find_place(stage).generators if stage in explorer.places else {}
        can_fade = FADE in generators and (moment == FADE or len(generators) == 1)
        return gradio.update(interactive=len(generators) > 1), gradio.update(interactive=can_fade)

    stage, moment, alpha = (controls[name] for name in ("stage", "moment", "alpha"))
    gradio.on(
        [page.load, stage.change, moment.change],
        adapt,
        inputs=[stage, moment],
        outputs=[moment, alpha],
        show_progress="hidden",
    )


def _build_controls(gradio: Any, explorer: Explorer) -> dict[str, Any]:
    """Return the controls of a page, by the names of `View`'s attributes; what a generator lacks is hidden."""
    with gradio.Group():
        controls = _build_place_controls(gradio, explorer)
    with gradio.Group():
        controls |= _build_latent_controls(gradio)
    with gradio.Group():
        controls |= _build_style_controls(gradio, explorer)
    return controls


def _build_place_controls(gradio: Any, explorer: Explorer) -> dict[str, Any]:
    """Return the controls of the place in the growth: the stage, and where in it."""
    places = list(explorer.places.values())
    sizes = ", ".join(f"{place.stage}: {place.size}" for place in places)
    fades = any(FADE in place.generators for place in places)
    moment = FADE if fades else END
    return {
        "stage": gradio.Slider(
            places[0].stage,
            # A slider needs two ends, also where it is hidden.
            max(places[-1].stage, places[0].stage + 1),
            value=places[-1].stage,
            step=1,
            label="Stage",
            info=sizes,
            visible=len(places) > 1,
            elem_id="stage",
        ),
        "moment": gradio.Radio(
            list(MOMENTS), value=moment, label="Weights of the stage", visible=fades, elem_id="moment"
        ),
        "alpha": gradio.Slider(
            **SHARE,
            value=1,
            label="Alpha of the fade",
            info="0: the old path alone; 1: the new path alone",
            visible=fades,
            elem_id="alpha",
        ),
    }


def _build_latent_controls(gradio: Any) -> dict[str, Any]:
    """Return the controls of the latents, and of how many images of them are shown."""
    with gradio.Row():
        seeds = {
            "seed": gradio.Number(0, precision=0, minimum=0, label="Seed", elem_id="seed"),
            "second_seed": gradio.Number(1, precision=0, minimum=0, label="Second seed", elem_id="second_seed"),
        }
    return {
        **seeds,
        "way": gradio.Slider(**SHARE, value=0, label="Way from the first seed to the second", elem_id="way"),
        "count": gradio.Slider(1, MOST_IMAGES, value=16, step=1, label="Images", elem_id="count"),
        "shown": gradio.Radio(list(SHOWN), value=SHOWN[0], label="Show", elem_id="shown"),
    }


def _build_style_controls(gradio: Any, explorer: Explorer) -> dict[str, Any]:
    """Return the controls of what the generator is given beside latents: the class, truncation and mixed styles."""
    return {
        "label": gradio.Dropdown(
            [IN_TURN, *explorer.class_names],
            value=IN_TURN,
            label="Class",
            visible=explorer.classes > 0,
            elem_id="label",
        ),
        "truncation": gradio.Slider(
            **SHARE,
            value=1,
            label="Truncation",
            info="Less variety and fewer failures; 1: none",
            visible=explorer.can_truncate,
            elem_id="truncation",
        ),
        "first_mixed_layer": gradio.Slider(
            0,
            # Hidden where there are no styles.
            max(explorer.style_layers, 1),
            value=explorer.style_layers,
            step=1,
            label="Style mixing: first layer with the second seed's style",
            info=f"0: all layers; {explorer.style_layers}: none",
            visible=explorer.style_layers > 0,
            elem_id="first_mixed_layer",
        ),
    }


class Painter:
    """What turns the values of a page's controls into files of pictures.

    Args:
        explorer: what draws them.
        title: beginning of their names.
        folder: their folder.
    """

    def __init__(self, explorer: Explorer, title: str, folder: Path) -> None:
        self.explorer = explorer
        self._title = title
        self._folder = folder
        self._painted = 0

    def paint(self, values: dict[str, Any]) -> tuple[Path, str]:
        """Return the file of a picture, which also has the view as text, and what it shows in words.

        Args:
            values: values of the controls; see `make_view`.

        Raises:
            SettingError: a value is out of range.
            RunError: see `Explorer.draw`.
        """
        view = self.make_view(values)
        described = self.explorer.describe(view)

        # The file says how to draw the picture again.
        about = PngInfo()
        about.add_text("pggan_kit", json_text(asdict(view)))
        path = self._locate(self._painted)
        self.explorer.draw(view).save(path, "PNG", pnginfo=about)

        # Of many pictures only the last stay.
        self._locate(self._painted - KEPT_PICTURES).unlink(missing_ok=True)
        self._painted += 1
        return path, described

    def make_view(self, values: dict[str, Any]) -> View:
        """Return the view that controls ask for: a class by its name, no truncation at 1, no mixing at the last layer.

        Raises:
            SettingError: a value is out of range.
        """
        label = None
        if values["label"] != IN_TURN:
            label = self.explorer.class_names.index(values["label"])
        first_mixed_layer = None
        if values["first_mixed_layer"] < self.explorer.style_layers:
            first_mixed_layer = values["first_mixed_layer"]
        return View(**{**values, "label": label, "first_mixed_layer": first_mixed_layer})

    def _locate(self, number: int) -> Path:
        return self._folder / f"{self._title}-{number:04d}.png"
