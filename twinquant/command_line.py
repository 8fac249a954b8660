"""A command as the user typed it, for records and model cards: with passwords left out."""

import shlex
from collections.abc import Sequence

# Flags of Hugging Face's scripts whose values open somebody's account.
SECRET_FLAGS = frozenset({"token", "hub_token", "use_auth_token", "push_to_hub_token"})
HIDDEN = "(hidden)"


def without_secrets(argv: Sequence[str]) -> list[str]:
    """The words of a command line; the values of flags that hold an access token are replaced by "(hidden)"."""
    words: list[str] = []
    secret_follows = False
    for word in argv:
        name, equals, _ = word.partition("=")
        is_flag = word.startswith("-")
        is_secret = is_flag and name.lstrip("-").replace("-", "_") in SECRET_FLAGS
        if secret_follows and not is_flag:
            words.append(HIDDEN)
        else:
            words.append(f"{name}={HIDDEN}" if is_secret and equals else word)
        secret_follows = is_secret and not equals
    return words


def shown_command(program: str, argv: Sequence[str]) -> str:
    """The command as a line for a shell, without secrets: "python run_squad.py --do_train ..."."""
    start = program if program.startswith("python ") else f"python {program}"
    return " ".join([start, *map(shlex.quote, without_secrets(argv))])
