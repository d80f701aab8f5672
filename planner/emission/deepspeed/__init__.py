"""DeepSpeed: the JSON of `deepspeed.initialize`, and the hosts that its own launcher asks for."""
