"""The `resurge` command. One module a subcommand; each imports what it needs when it runs, and not before."""

from resurge.cli.program import main

__all__ = ["main"]
