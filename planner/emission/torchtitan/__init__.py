"""torchtitan: a Python module of one configuration, as its ConfigManager loads it with --module and --config."""
