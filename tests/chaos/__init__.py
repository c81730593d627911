"""Faults drawn from a seed, thrown at real processes; what must hold is checked from outside."""
