"""Wrong settings of sweeps: each is refused before anything is trained, with what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from helpers.gin_text import bind_again
from helpers.sweep_files import PLUGINS, SWEEP, TWO_STAGES

from pggan_kit.errors import ConfigError, SettingError
from pggan_kit.sweeps.plan_reading import _list_targets, _require_unbound
from pggan_kit.sweeps.settings import read_arm_tuning

LR = "'g/optimizers.Adam.lr'"


@pytest.fixture
def refuse(
    tiny: Callable[..., str], cli: Callable[..., Result], refused: Callable[[Result, str], str]
) -> Callable[..., str]:
    """`refuse(pattern, "sweep.trials = 0", base=[...])` checks that a sweep with these lines is refused."""

    def check(pattern: str, *lines: str, base: tuple[str, ...] = (), args: tuple[str, ...] = ()) -> str:
        tiny(TWO_STAGES, *base)
        Path("sweep.gin").write_text(bind_again(SWEEP, lines))
        plugins = [f"--plugin={file}" for file in PLUGINS]
        message = refused(cli("sweep", "sweep.gin", "--out", "out", *plugins, *args), pattern)
        assert not Path("out").exists()
        return message

    return check


@pytest.mark.parametrize(
    ("ranges", "pattern"),
    [
        ("{}", r"sweep\.gin:7: sweep\.parameters must name at least one parameter"),
        ("{'a = b': ('log', 1, 2)}", r"must have gin names such as .*, not 'a = b'"),
        (f"{{{LR}: 1e-3}}", r"must give g/optimizers\.Adam\.lr a range such as \('log', 1e-4, 1e-2\), not 0\.001"),
        (f"{{{LR}: ('logg', 1, 2)}}", r"gives g/optimizers\.Adam\.lr a range whose kind must be .*'log'"),
        (f"{{{LR}: ('uniform', 1)}}", r"must give .*lr two finite numbers after 'uniform', not \[1\]"),
        (f"{{{LR}: ('uniform', 1, 1e999)}}", r"two finite numbers|not finite|infinite"),
        (f"{{{LR}: ('uniform', 2, 2)}}", r"gives .*lr an empty range: 2 is not below 2"),
        (f"{{{LR}: ('log', 0, 1)}}", r"gives .*lr a logarithmic range from 0: it must begin above 0, or be 'uniform'"),
        ("{'train.latent_size': ('integer', 4, 8.5)}", r"two whole numbers after 'integer', not \[4, 8\.5\]"),
        ("{'train.latent_size': ('choice', 4, 8)}", r"must give train\.latent_size one list after 'choice'"),
        ("{'train.latent_size': ('choice', [4])}", r"at least two choices, each once, not \[4\]: bind a single one"),
        ("{'train.latent_size': ('choice', [4, 4])}", r"at least two choices, each once"),
    ],
)
def test_ranges_that_are_none(ranges: str, pattern: str, refuse: Callable[..., str]) -> None:
    pytest.importorskip("optuna", reason="needs the extra sweep: make test-extras")
    refuse(pattern, f"sweep.parameters = {ranges}")


def test_settings_that_do_not_fit(refuse: Callable[..., str]) -> None:
    pytest.importorskip("optuna", reason="needs the extra sweep: make test-extras")
    refuse(r"sweep\.gin:7: sweep\.trials must be a whole number of at least 1, and is 0", "sweep.trials = 0")
    refuse(r"sweep\.seeds must be at least one, each once", "sweep.seeds = ()")
    refuse(r"sweep\.seeds must be a whole number from 0", "sweep.seeds = (-1,)")
    refuse(r"sweep\.search must be .*'tpe'", "sweep.search = 'tpee'")
    refuse(r"sweep\.startup must be a whole number of at least 1", "sweep.startup = 0")
    no_effect = r"sweep\.startup has no effect with the search 'random' and without the pruner 'median': leave it out"
    refuse(no_effect, "sweep.search = 'random'", "sweep.startup = 3")
    refuse(no_effect, "sweep.search = 'random'", "sweep.startup = 3", "sweep.pruner = 'halving'")
    refuse(r"sweep\.pruner must be .*'median'", "sweep.pruner = 'mediam'")
    refuse(r"sweep\.search_seed must be a whole number from 0", "sweep.search_seed = -1")
    refuse(r"sweep\.base, which is relative to the sweep's file: .*no such file", "sweep.base = 'none.gin'")
    refuse(r"sweep has no parameter trails.*trials", "sweep.trails = 3")

    # Names that the experiment does not have, and values that it refuses.
    unknown = "sweep.parameters = {'g/optimizers.Adam.rate': ('log', 1e-4, 1e-2)}"
    refuse(r"sweep\.parameters: .*optimizers\.Adam has no parameter rate", unknown)
    unused = "sweep.parameters = {'penalties.R1.weight': ('log', 1e-4, 1e-2)}"
    refuse(r"sweep\.parameters: .*nothing in this experiment uses penalties\.R1\.weight", unused)
    refuse(
        r"sweep\.parameters: .*latent_size.* must be .*0", "sweep.parameters = {'train.latent_size': ('integer', 0, 8)}"
    )
    refuse(
        r"sweep\.parameters: with schedule\.sizes = \(4, 8, 16\) the stages are 4x4, 8x8, 16x16, and else 4x4, 8x8",
        "sweep.parameters = {'schedule.sizes': ('choice', [(4, 8), (4, 8, 16)])}",
    )
    refuse(r"train\.seed is bound by the seeds", "sweep.parameters = {'train.seed': ('integer', 0, 8)}")

    # What is measured.
    refuse(r"the metric is 'FID', and the evaluation at 8x8 gives gap, signed: bind", "sweep.metric = 'FID'")
    refuse(r"gives nothing: bind train\.metrics", "sweep.evaluation = ['evaluation.count = 4']")
    refuse(r"sweep, its evaluation: .*unknown component", "sweep.evaluation = ['train.metrics = [@metrics.Gapp()]']")
    one_stage = "sweep.bindings = ['schedule.sizes = (8,)']"
    refuse(
        r"the pruner 'median' has nothing to go by, because gap is measured at the end of 8x8 alone",
        "sweep.pruner = 'median'",
        one_stage,
    )


def test_what_a_search_binds_is_bound_nowhere_else(refuse: Callable[..., str]) -> None:
    pytest.importorskip("optuna", reason="needs the extra sweep: make test-extras")
    lr = r"g/optimizers\.Adam\.lr, which is one of the parameters and has other values in each trial: leave it out"
    refuse(f"sweep: sweep\\.bindings binds {lr}", "sweep.bindings = ['g/optimizers.Adam.lr = 0.5']")
    refuse(f"sweep: an override binds {lr}", args=("-b", "g/optimizers.Adam.lr = 0.5"))
    refuse(f"sweep: its evaluation binds {lr}", "sweep.evaluation = ['g/optimizers.Adam.lr = 0.5']")
    seed = r"train\.seed, which is bound by the seeds: bind sweep\.seeds instead"
    refuse(f"sweep: sweep\\.bindings binds {seed}", "sweep.bindings = ['train.seed = 5']")
    refuse(f"sweep: an override binds {seed}", args=("-b", "train.seed = 5"))


def test_a_sweep_without_optuna_names_the_extra(refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    refuse(r"sweeps and `ablate\.tune` need optuna: pip install 'pggan_kit\[sweep\]'")


def test_a_sweep_is_no_experiment(
    tiny: Callable[..., str], cli: Callable[..., Result], refused: Callable[[Result, str], str]
) -> None:
    tiny()
    Path("sweep.gin").write_text(SWEEP)
    plugins = [f"--plugin={file}" for file in PLUGINS]
    refused(cli("train", "sweep.gin", *plugins), "this is the file of a sweep, which `pggan-kit sweep` runs")
    if "optuna" in sys.modules:
        refused(cli("sweep", "tiny.gin", *plugins), "sweep.base")


@pytest.mark.parametrize("texts", [[3], [None], [["x = 1"]]])
def test_bindings_of_tuning_are_texts(texts: list[Any]) -> None:
    written = {"parameters": {"a.b": ("log", 1, 2)}, "trials": 2, "seeds": (7,), "tuning": texts}
    with pytest.raises(SettingError, match=r"must have bindings as texts in its entry 'tuning', not \["):
        read_arm_tuning(written, [0])


def test_what_a_search_binds_is_found_among_several_bindings_of_one_text() -> None:
    for text in ("train.keep = 2\na.b = 3", "a:\n  b = 3", "a.b=3"):
        with pytest.raises(ConfigError, match=r"^sweep: it binds a\.b, which is bound$"):
            _require_unbound(["a.b"], {"it binds": [text]}, "sweep", "is bound")
    assert _list_targets({"7": ["a.b = 7\nx/c.d = 7"]}) == {"a.b", "x/c.d"}
