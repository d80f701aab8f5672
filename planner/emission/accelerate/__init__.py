"""Accelerate: the YAML of `accelerate launch`, for PyTorch's FSDP2 under a mesh of its own."""
