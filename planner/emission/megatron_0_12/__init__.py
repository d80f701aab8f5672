"""Megatron-LM core 0.12, and what MindSpeed-LLM adds to its arguments on Ascend devices."""
