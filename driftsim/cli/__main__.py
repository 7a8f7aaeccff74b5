"""``python -m driftsim.cli``."""

from driftsim.cli.app import main

main()
