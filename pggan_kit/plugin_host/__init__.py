"""Find and load plugins, check them against their contracts, and call their hooks."""
