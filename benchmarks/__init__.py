"""Paired measurements: programs that print figures and the ratios between them."""
