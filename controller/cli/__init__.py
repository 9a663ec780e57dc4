"""The command line: a client of the API, but for ``up``, which runs the controller."""

from controller.cli.root import main

__all__ = ["main"]
