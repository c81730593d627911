"""Storage adapters on real files."""
