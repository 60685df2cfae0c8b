"""How long a test waits for another process."""

PATIENCE_SECONDS = 600
"""Seconds after which a process counts as hanging: a guard, not a claim about speed, on any machine."""
