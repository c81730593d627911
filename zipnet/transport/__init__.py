"""Adapters of the Transport port, one module per engine, and the session that runs over them."""
