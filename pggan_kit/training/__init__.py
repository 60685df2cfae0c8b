"""Every way to take a training step, and the loop around it."""
