"""Reports of the simulator: plots, one self-contained page, raw events, comparisons."""
