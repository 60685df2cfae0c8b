"""Runs that need more memory than there is: the message has the command that continues them with less."""

import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest
import torch
from click.testing import Result

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


def test_the_message_at_growth_has_a_command_that_continues(
    train: Callable[..., Any], cli: Callable[..., Result], stub: str
) -> None:
    with pytest.raises(TrainingError) as failed:
        train(plugins=(Filler(16),), run_dir="a run")
    message = str(failed.value)
    assert re.match(r"out of memory \(stage 16x16, fade, images 24; rows of a batch at once: 4\): .*2\.00 GiB", message)
    assert "Bind train.micro_batch" in message
    assert "largest that fits is shown by: pggan-kit plan 'a run/config.gin'. " in message
    assert message.endswith("pggan-kit train 'a run/config.gin' --from 'a run@8x8' -b 'train.micro_batch = 2'")

    command = shlex.split(message[message.index("pggan-kit train") :])
    done = cli(*command[1:], "--plugin", stub, "--run-dir", "branch")
    assert done.exit_code == 0, done.stderr


def test_a_run_in_its_first_stage_begins_again_with_a_slice_that_divides_every_batch(train: Callable[..., Any]) -> None:
    batches = "schedule.batch_size = {4: 12, 8: 8, 16: 4}"
    command = r"pggan-kit train run/config\.gin -b 'train\.micro_batch = 4'"
    with pytest.raises(TrainingError, match=rf"at once: 12\).*: {command}$"):
        train(batches, plugins=(Filler(4, "after_step", MemoryError),), run_dir="run")


def test_a_single_row_has_no_smaller_slice(train: Callable[..., Any]) -> None:
    with pytest.raises(TrainingError, match=r"at once: 1\).* One row is the least: choose narrower networks"):
        train("train.micro_batch = 1", plugins=(Filler(8),), run_dir="run")


def test_only_full_memory_is_taken_for_it() -> None:
    with pytest.raises(RuntimeError) as full:
        torch.empty(2**60)
    assert is_out_of_memory(full.value)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
