"""The protocol a second time, deliberately naive; it imports nothing from the product."""
