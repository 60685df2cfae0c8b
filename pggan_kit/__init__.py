"""pggan_kit: a plugin-based experiment framework for progressive growing of GANs."""

from pggan_kit.api.evaluate import evaluate
from pggan_kit.api.generator import load_generator
from pggan_kit.api.train import resume, train
from pggan_kit.components import Component, Critic, Quantity, Reals, Scores, StepContext
from pggan_kit.hookspecs import hookimpl
from pggan_kit.runs.generators import TrainedGenerator
from pggan_kit.runs.run import Run, Stats
from pggan_kit.schedule import PerStage, Stage, at_height
from pggan_kit.training.step import image_gradients
from pggan_kit.version import __version__ as __version__

__all__ = [
    "Component",
    "Critic",
    "PerStage",
    "Quantity",
    "Reals",
    "Run",
    "Scores",
    "Stage",
    "Stats",
    "StepContext",
    "TrainedGenerator",
    "at_height",
    "evaluate",
    "hookimpl",
    "image_gradients",
    "load_generator",
    "resume",
    "train",
]
