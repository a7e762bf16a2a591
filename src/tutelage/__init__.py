"""Specialise a language model on your own text, and prove that it got better."""

__version__ = "0.1.0"
