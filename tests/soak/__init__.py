"""A long run of a real network under steady load, and what must not grow in it."""
