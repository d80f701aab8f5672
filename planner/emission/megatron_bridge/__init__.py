"""Megatron-Bridge: a Python recipe, its plain GPT with everything that a plan says set over it."""
