"""Pure values and derivations of the protocol, one module per noun of ``docs/protocol.md``."""
