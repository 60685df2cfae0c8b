"""Measure how fast a stage trains, what it costs, and how near that is to what the machine could do."""

from pggan_kit.benchmarking.bench import bench
from pggan_kit.benchmarking.compare import compare

__all__ = ["bench", "compare"]
