"""What the command line refuses, with the remedy in the message."""

from __future__ import annotations


class UsageError(Exception):
    """The user asked for something that cannot be done as asked; printed as one message, exit status 2."""


class InvariantError(Exception):
    """The loop broke one of its promises; printed loudly, exit status 1."""
