"""The verbs of users: prepare, train, resume, evaluate, sample, and load a generator."""
