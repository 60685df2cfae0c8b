"""Runs that need more memory than there is: the message has the command that continues them with less."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from helpers.killing import last

import pggan_kit
from pggan_kit import hookimpl
from pggan_kit.errors import TrainingError
from pggan_kit.training.out_of_memory import is_out_of_memory


class Filler:
    """A plugin that runs out of memory where a stage begins, or after its first step.

    Args:
        height: Height of the stage.
        hook: Name of the hook.
        error: The exception.
    """

    def __init__(
        self, height: int, hook: str = "before_stage", error: type[Exception] = torch.OutOfMemoryError
    ) -> None:
        self.height = height
        self.hook = hook
        self.error = error

    def fill(self, stage: Any, hook: str) -> None:
        if (stage.height, hook) == (self.height, self.hook):
            raise self.error("CUDA out of memory. Tried to allocate 2.00 GiB")

    @hookimpl
    def before_stage(self, stage: Any) -> None:
        self.fill(stage, "before_stage")

    @hookimpl
    def after_step(self, stage: Any) -> None:
        self.fill(stage, "after_step")


def run_command_of(message: str, cli: Callable[..., Result]) -> None:
    """Run the command at the end of a message."""
    command = shlex.split(message[message.index("checkpoint: ") :])[1:]
    done = cli(*command[1:])
    assert done.exit_code == 0, done.stderr


def test_the_message_at_growth_has_a_command_that_continues(
    train: Callable[..., Any], cli: Callable[..., Result]
) -> None:
    with pytest.raises(TrainingError) as failed:
        train(plugins=(Filler(16),), run_dir="a run")
    message = str(failed.value)
    assert re.match(r"out of memory \(stage 16x16, fade, images 24; rows of a batch at once: 4\): .*2\.00 GiB", message)
    assert "Bind train.micro_batch" in message
    assert "largest that fits is shown by: pggan-kit plan 'a run/config.gin'. " in message
    assert message.endswith("last checkpoint: pggan-kit resume 'a run' -b 'train.micro_batch = 2'")
    run_command_of(message, cli)
    assert last(Path("a run"))["images"] == 40


@pytest.mark.parametrize("part", ["nothing", "weights", "average"])
def test_the_command_continues_whatever_is_kept_of_stages(
    part: str, train: Callable[..., Any], cli: Callable[..., Result]
) -> None:
    with pytest.raises(TrainingError) as failed:
        train(f"train.keep_stages = '{part}'", "train.keep = 1", plugins=(Filler(16),), run_dir="run")
    run_command_of(str(failed.value), cli)
    assert last(Path("run"))["images"] == 40


def test_the_command_continues_a_branch_that_has_no_stage_of_its_own(
    train: Callable[..., Any], tiny: Callable[..., str], cli: Callable[..., Result], stub: str
) -> None:
    train(run_dir="trunk")
    with pytest.raises(TrainingError) as failed:
        pggan_kit.train(tiny(), run_dir="branch", plugins=[stub, Filler(16, "after_step")], start_from="trunk@8x8")
    run_command_of(str(failed.value), cli)
    assert last(Path("branch"))["images"] == 40


def test_a_run_without_a_checkpoint_begins_again_with_a_slice_that_divides_every_batch(
    train: Callable[..., Any],
) -> None:
    batches = "schedule.batch_size = {4: 12, 8: 8, 16: 4}"
    command = r"begin again .*: pggan-kit train run/config\.gin -b 'train\.micro_batch = 4'"
    with pytest.raises(TrainingError, match=rf"at once: 12\).*{command}$"):
        train(batches, plugins=(Filler(4, error=MemoryError),), run_dir="run")


def test_a_single_row_has_no_smaller_slice(train: Callable[..., Any]) -> None:
    with pytest.raises(TrainingError, match=r"at once: 1\).* One row is the least: choose narrower networks"):
        train("train.micro_batch = 1", plugins=(Filler(8),), run_dir="run")


def test_only_full_memory_is_taken_for_it() -> None:
    with pytest.raises(RuntimeError) as full:
        torch.empty(2**60)
    assert is_out_of_memory(full.value)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
