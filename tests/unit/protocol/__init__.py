"""The pure protocol core, module by module."""
