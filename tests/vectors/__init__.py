"""Test vectors: text files made by the naive reference and checked against the product."""
