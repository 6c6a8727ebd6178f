"""The one exception that stands for bad input."""

from __future__ import annotations


class UserError(ValueError):
    """Input that cannot be used; the message is one sentence that says what is wrong and what would be right.

    The command line prints the message alone and exits with code 2. Library users can catch it as a `ValueError`.
    """
