"""Nanotron: the YAML file of run_train.py, with its Qwen2 model, of whose kind models of Llama's are."""
