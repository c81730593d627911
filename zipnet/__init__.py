"""Anonymous broadcast: an any-trust DC-net whose rounds end in a record anyone can verify."""
