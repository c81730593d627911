"""Verify Intel TDX quotes in plain Python, and all that is around them; usable without zipnet.

Rooms, each importing only those before it: ``errors``, ``quote``, ``trust`` and ``collateral``,
``policy``, ``verify``, ``binding``, then ``guest``, ``fetch``, ``measure``, ``replay`` and
``emulator`` side by side, and ``cli`` on top.
"""
