"""Measure how far fakes are from reals."""
