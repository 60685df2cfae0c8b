"""Trials on real Ray, on a cluster of two nodes of which one is killed. Starting Ray takes long: `make test-slow`."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import STUB
from helpers.ablation_plugin import SWITCH
from helpers.killing import assert_same_run
from helpers.paths import ABLATION_PLUGIN

from pggan_kit.ablation import conduct as running
from pggan_kit.ablation import plan_reading
from pggan_kit.components import Launcher, Trial
from pggan_kit.errors import ConfigError
from pggan_kit.testing import LauncherSuite
from pggan_plugins.launchers import Local, Ray, ray_cluster

# Not imported before a test needs it: that takes half a second.
if importlib.util.find_spec("ray") is None:
    pytest.skip("`make` installs the extra ray", allow_module_level=True)

PLUGIN = ABLATION_PLUGIN

SLOW = """\
import time
from pggan_kit import hookimpl

@hookimpl
def after_step():
    time.sleep(0.25)
"""


@pytest.mark.slow
class TestRay(LauncherSuite):
    bad_arguments = ({"cores": 0}, {"gpus": -0.5}, {"gpus": 1.5}, {"retries": -1})

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _start_ray(cls) -> Iterator[None]:
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()

    def make(self) -> Ray:
        return Ray()


@pytest.fixture
def cluster() -> Iterator[Any]:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_a_failing_node_changes_no_trial(cluster: Any, tiny: Callable[..., str], tmp_path: Path) -> None:
    doomed = cluster.add_node(num_cpus=1)
    tiny("train.tick = 4")
    # Two seeds are too few for a verdict, which only controls go without.
    controls = "ablate.controls = {'hard': 2}\n"
    Path("switch.gin").write_text(SWITCH.replace("launchers.Here", "launchers.Local") + controls)
    Path("slow.py").write_text(SLOW)

    def run(launcher: Launcher, out: str) -> Path:
        plan, _ = plan_reading.read_plan("switch.gin", [], [str(STUB), str(PLUGIN), str(tmp_path / "slow.py")])
        running.run_ablation(plan, launcher, tmp_path / out, [].append)
        return tmp_path / out

    killed: list[int] = []

    def kill() -> None:
        begun = tmp_path / "there" / "runs"
        while len({path.parents[1] for path in begun.glob("*/*/checkpoints/manifest.json")}) < 2:
            time.sleep(0.05)
        killed.append(len(list(begun.glob("*/*/result.json"))))
        cluster.remove_node(doomed, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    there = run(Ray(address=cluster.address), "there")
    killer.join()
    assert killed == [0], "two trials were half-way, one on each node"
    logs = [path.read_text() for path in there.glob("runs/*/*/log.txt")]
    assert any("resumed at images" in log for log in logs), "the trial of the killed node went on elsewhere"
    here = run(Local(jobs=2), "here")
    for variant in ("linear", "hard"):
        for seed in ("0", "1"):
            assert_same_run(there / "runs" / variant / seed, here / "runs" / variant / seed)


def test_wrong_settings_are_refused() -> None:
    for settings in TestRay.bad_arguments:
        with pytest.raises(ValueError, match=next(iter(settings))):
            Ray(**settings)


def test_a_missing_ray_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'pggan_kit\[ray\]'"):
        Ray()


def test_a_trial_gets_its_share_of_cores() -> None:
    assert ray_cluster._build_environment({"CUDA_VISIBLE_DEVICES": "3"}, 2) == {
        "CUDA_VISIBLE_DEVICES": "3",
        "OMP_NUM_THREADS": "2",
    }


def test_an_error_at_the_end_of_the_last_trial_is_not_hidden(tmp_path: Path) -> None:
    def wait(references: list[str], num_returns: int = 1) -> tuple[list[str], list[str]]:
        assert 0 < num_returns <= len(references), "Ray refuses it"
        return references[:num_returns], references[num_returns:]

    ray: Any = SimpleNamespace(
        remote=lambda **options: lambda task: SimpleNamespace(remote=lambda trial, cores: trial.name),
        wait=wait,
        get=lambda reference: 0,
        cancel=lambda reference: None,
        exceptions=SimpleNamespace(RayTaskError=KeyError, RayError=KeyError),
    )

    def end(trial: Trial, code: int) -> None:
        raise OSError("the disk is full")

    for count in (1, 2):
        trials = [Trial(str(number), [], tmp_path / "log") for number in range(count)]
        with pytest.raises(OSError, match="the disk is full"):
            Ray()._run_tasks(ray, trials, end)
