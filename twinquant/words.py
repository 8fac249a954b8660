"""Numbers of things in messages: 1 step, 2 steps, 3 batches."""


def plural(unit: str) -> str:
    """Of a regular English noun."""
    return f"{unit}es" if unit.endswith(("ch", "s", "x")) else f"{unit}s"


def counted(number: int, unit: str) -> str:
    """The number and the noun, in the singular for 1."""
    return f"{number} {unit if number == 1 else plural(unit)}"
