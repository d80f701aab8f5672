"""The reference launcher: trains a plan's layout with PyTorch's own parallelism, and measures what it does.

It is the `torch` extra; nothing below imports it.
"""
