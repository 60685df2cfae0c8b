"""Runs: their directory, state, checkpoints, identity and branches."""
