"""The gin file of a tiny sweep, whose trials run in this process."""

from __future__ import annotations

from helpers.paths import ABLATION_PLUGIN, STUB_PLUGIN

SWEEP = """\
sweep.base = 'tiny.gin'
sweep.parameters = {'g/optimizers.Adam.lr': ('log', 1e-4, 1e-2), 'train.latent_size': ('choice', [4, 8])}
sweep.trials = 3
sweep.metric = 'gap'
sweep.evaluation = ['train.metrics = [@metrics.Gap()]', 'evaluation.count = 4']
sweep.launcher = @launchers.Here()
"""

PLUGINS = [str(STUB_PLUGIN), str(ABLATION_PLUGIN)]

TWO_STAGES = "schedule.sizes = (4, 8)"
