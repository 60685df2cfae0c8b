"""What the machine gives: files written whole, locks, ranks, signals, seeds, devices, and what machine this is."""
