"""The space of parallel layouts: what is legal, and which is best."""
