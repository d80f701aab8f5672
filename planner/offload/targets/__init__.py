"""What each target can express of a decision, and its settings.

One module a target, with the same functions: `candidates`, all that it can be told, and `settings`, what it is told;
PyTorch, whose layers are told one by one, has the linear program's choices.
"""
