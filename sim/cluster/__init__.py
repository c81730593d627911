"""Cluster mode: a network of real processes on loopback, watched, troubled and reported on."""
