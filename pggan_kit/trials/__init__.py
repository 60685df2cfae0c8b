"""What ablations and sweeps share: processes that a launcher runs, the runs they train, and the values of metrics."""
