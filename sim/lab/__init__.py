"""The laboratory: adversaries against the protocol's own machines, and what each of them learns."""
