"""Deterministic stand-ins for the world around a node: time, network and disk.

Everything here is driven by one seed and by virtual time, so a run can be repeated exactly and a
minute of trouble costs a fraction of a second. Nothing shipped imports this package.
"""
