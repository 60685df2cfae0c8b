"""What ablations and sweeps share: their files, processes that a launcher runs, runs, and the values of metrics."""
