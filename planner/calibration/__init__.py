"""Fitting the constants of devices, clusters and stacks to what was measured."""
