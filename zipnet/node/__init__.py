"""Composition: machines, adapters and settings become running nodes."""
