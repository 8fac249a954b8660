"""Words of messages whose form depends on a number: 1 step, 2 steps; --a has, --a, --b have no effect."""

from collections.abc import Sequence


def plural(unit: str) -> str:
    """Of a regular English noun."""
    return f"{unit}es" if unit.endswith(("ch", "s", "x")) else f"{unit}s"


def counted(number: int, unit: str) -> str:
    """The number and the noun, in the singular for 1."""
    return f"{number} {unit if number == 1 else plural(unit)}"


def no_effect(flags: Sequence[str]) -> str:
    """ "--a has no effect", "--a, --b have no effect": the start of a note."""
    return f"{', '.join(flags)} {'has' if len(flags) == 1 else 'have'} no effect"
