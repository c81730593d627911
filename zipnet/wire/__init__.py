"""Bytes to types and back, size-capped and without I/O: frames, limits, handshake, messages."""
