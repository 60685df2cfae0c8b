"""Resize, cache and draw a data set's images."""
