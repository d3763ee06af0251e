"""Winnow's core: the nouns, the arithmetic and the steps of an active-learning loop."""

__version__ = "0.1.0"
