"""Megatron-LM: command-line arguments of pretrain_gpt.py, as its own argument parser takes them."""
