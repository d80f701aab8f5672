"""Clusters of islands: which axis crosses their links, and what each island trains."""
