"""Several nodes in one process: guests of a host, apart from each other, and the micro profile."""
