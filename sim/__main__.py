"""``python -m sim`` is ``zipnet-sim``."""

from sim.cli import main

main()
