"""The one exception that stands for bad input."""

from __future__ import annotations


class UserError(ValueError):
    """Input that cannot be used; the message is one sentence that says what is wrong and what would be right.

    The command line prints the message alone and exits with code 2. Library users can catch it as a `ValueError`.
    """


MOST_SEED = 2**32 - 1


def check_seed(seed: int) -> None:
    """See that a random generator takes a seed.

    Raises:
        UserError: if it is negative or too large.
    """
    if not 0 <= seed <= MOST_SEED:
        raise UserError(f"seed must be from 0 to {MOST_SEED}, not {seed}.")
