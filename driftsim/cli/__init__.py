"""The command line: parse, call one function, print."""

from driftsim.cli.app import main

__all__ = ["main"]
