"""Properties of the pure protocol core, against the naive reference."""
