"""Placements as engines read them, a module a format: `text` or `content` writes one, `read` reads it back."""
