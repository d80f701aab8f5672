"""Timing this machine's own products, attention, copies and collectives."""
