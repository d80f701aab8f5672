"""What the library gives, as JSON and as tables."""
