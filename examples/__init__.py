"""Programs that show zipnet at work; the tests run them."""
