"""Command-line flags as a table: one row per flag, every spelling of the old scripts, errors of one sentence.

The scripts that this project answers were written for two parsers: absl (`--do_train=True`, `-do_train`,
`--nodo_train`) and argparse (`--do_train`, `--quant-mode ft2`). Both kinds of command line are read here. Nothing is
printed while parsing: what the user should know is collected in `ParsedFlags.notes`.
"""

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from twinquant import __version__
from twinquant.command_line import HIDDEN, SECRET_FLAGS
from twinquant.errors import UserError

GROUPS = (
    "model and checkpoints",
    "data",
    "calibration",
    "fine-tuning",
    "quantization",
    "distillation",
    "prediction",
    "runtime",
    "multi-process",
    "export",
    "accepted for old command lines",
)
TRUE_WORDS = ("true", "1", "yes", "t", "y")
FALSE_WORDS = ("false", "0", "no", "f", "n")
_FLAG_TOKEN = re.compile(r"--?([A-Za-z][A-Za-z0-9_-]*)(=.*)?", re.DOTALL)
# In transformers 4 and 5 a value below 1 of these is a part of all updates.
_PARTS_OF_ALL_UPDATES = ("--logging_steps", "--save_steps", "--eval_steps")
_NEGATIVE_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Flag:
    """One row of a flag table.

    `type` is bool, int, float, str or list (a list of words). `within` bounds a number, in interval notation:
    "[1, inf)", "(0, 100]". `kept` says that the settings have a field of this name; a flag that is not kept is
    translated into other fields by a rule, noted (`note`: the sentence added when it is given) or refused (`refused`:
    the sentence of the error when it is given a value other than its default). `quiet` are values that ask for nothing,
    so that neither is said, such as the defaults of the script that the flag comes from. `repeats`: of a list, that the
    words of every occurrence count, and not those of the last alone.
    """

    name: str
    type: type
    default: Any
    group: str
    help: str
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    metavar: str = ""
    within: str = ""
    kept: bool = True
    note: str = ""
    refused: str = ""
    quiet: tuple[Any, ...] = ()
    repeats: bool = False


@dataclass
class ParsedFlags:
    """What the user gave, defaults filled in: the rules of the scripts then work on `values` and add to `notes`."""

    values: dict[str, Any]
    spellings: dict[str, str]  # canonical name -> the last spelling the user gave, such as "--num_calib_batch"
    all_spellings: frozenset[str]  # every spelling that occurs on the command line
    notes: list[str] = field(default_factory=list)

    def given(self, name: str) -> bool:
        """True when the user gave the flag of this canonical name, in whatever spelling."""
        return name in self.spellings

    def spelling(self, name: str) -> str:
        """The flag as the user wrote it, for messages; its canonical spelling when it was not given."""
        return self.spellings.get(name, f"--{name}")


def parse_flags(
    flags: Sequence[Flag], argv: Sequence[str], program: str, head: str, file: tuple[str, Sequence[str]] = ("", ())
) -> ParsedFlags:
    """Read a command line against a table of flags.

    Accepts `--x=v`, `--x v`, one dash or two, hyphens or underscores in names, and for booleans `--x`, `--x=false`,
    `--x False` and `--nox` (absl's spellings and argparse's). A flag given twice keeps the last value, with a note
    (of one that `repeats`: all of them). `--help` prints `head` and the flags by group and leaves with exit code 0,
    `--version` likewise.

    file: the name of a file of arguments and the words it stands for; flags of the command line replace those of the
    file, with a note.

    Raises UserError for an unknown flag (naming the nearest known one), a value of the wrong type, a value out of
    bounds, a word that belongs to no flag, and a flag that is refused.
    """
    tokens = _normalize(argv, flags)
    for token in tokens:
        if token in ("--help", "--h", "--helpfull", "--helpshort"):
            # Imported here because flag_help needs Flag.
            from twinquant.flag_help import format_help

            print(format_help(flags, program, head))
            raise SystemExit(0)
        if token == "--version":
            print(f"{program} (twinquant {__version__})")
            raise SystemExit(0)

    parser = _build_parser(flags)
    in_file = _read_occurrences(parser, flags, _normalize(file[1]))
    typed = _read_occurrences(parser, flags, tokens)
    given = in_file | typed
    values = {flag.name: flag.default for flag in flags} | {name: found[-1].value for name, found in given.items()}
    parsed = ParsedFlags(
        values,
        {name: found[-1].spelling for name, found in given.items()},
        frozenset(occurrence.spelling for found in given.values() for occurrence in found),
    )
    replaced = [
        f"{found[-1].spelling}={_show(name, found[-1].value)} instead of {_show(name, in_file[name][-1].value)}"
        for name, found in typed.items()
        if name in in_file and in_file[name][-1].value != found[-1].value
    ]
    if replaced:
        parsed.notes.append(f"note: the command line replaces what {file[0]} says: {', '.join(replaced)}.")
    by_name = {flag.name: flag for flag in flags}
    for name, found in given.items():
        flag, value, spelling = by_name[name], found[-1].value, found[-1].spelling
        if any(other.value != value for other in found):
            names = " and ".join(dict.fromkeys(other.spelling for other in found))
            listed = ", ".join(_show(name, other.value) for other in found)
            parsed.notes.append(
                f"warning: {names} {'were' if ' and ' in names else 'was'} given {len(found)} times with different "
                f"values ({listed}); the last, {_show(name, value)}, is used."
            )
        if value in flag.quiet:
            continue
        if flag.refused and value != flag.default:
            raise UserError(f"{spelling} is refused: {flag.refused}")
        if flag.note and not (value is False and flag.default is False):
            parsed.notes.append(f"note: {spelling} {flag.note}")
    return parsed


def flag_names(argv: Sequence[str]) -> set[str]:
    """The names of the flags on a command line, as written but for dashes: {"do_eval"} for ["-do-eval", "true"]."""
    return {token.removeprefix("--").split("=")[0] for token in _normalize(argv) if _FLAG_TOKEN.fullmatch(token)}


def expected_value(flag: Flag) -> str:
    """What a flag takes, in words that fit after "takes": "a whole number of at least 1", "one of max, mse"."""
    if flag.type is bool:
        return "true or false (also 1 or 0, yes or no)"
    if flag.choices:
        return "one of " + ", ".join(flag.choices)
    if flag.type is list:
        return "one or more words"
    if flag.type is str:
        return "a text" if flag.metavar in ("", "NAME") else f"a {flag.metavar.lower()}"
    kind = "a whole number" if flag.type is int else "a number"
    if not flag.within:
        return kind
    low, high, low_closed, high_closed = _interval(flag.within)
    if math.isinf(high) and not math.isinf(low):
        return f"{kind} of at least {low:g}" if low_closed else f"{kind} above {low:g}"
    left = f"from {low:g}" if low_closed else f"above {low:g}"
    right = f"up to {high:g}" if high_closed else f"below {high:g}"
    return f"{kind} {left} {'and ' if not low_closed or not high_closed else ''}{right}"


@dataclass(frozen=True)
class _Occurrence:
    """A flag on the command line, as it was written, with its value."""

    spelling: str
    value: Any


def _read_occurrences(parser: "_Parser", flags: Sequence[Flag], tokens: Sequence[str]) -> dict[str, list[_Occurrence]]:
    """Canonical name -> its occurrences in order; of a flag that `repeats`, one with the words of all."""
    by_name = {flag.name: flag for flag in flags}
    namespace, rest = parser.parse_known_args(list(tokens), argparse.Namespace(occurrences=[]))
    if rest:
        _raise_unknown(rest, flags)
    given: dict[str, list[_Occurrence]] = {}
    for name, spelling, raw in namespace.occurrences:
        given.setdefault(name, []).append(_Occurrence(spelling, _convert(by_name[name], spelling, raw)))
    for name, found in given.items():
        if by_name[name].repeats:
            words = tuple(word for occurrence in found for word in occurrence.value)
            given[name] = [_Occurrence(found[-1].spelling, words)]
    return given


class _Parser(argparse.ArgumentParser):
    """argparse without its own printing and exiting."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


class _Collect(argparse.Action):
    """Keep every occurrence in order, with the spelling used, so that repeated flags can be told to the user."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        negation = self.metavar == "NEGATION"
        if negation and values is not None:
            raise UserError(f"{option_string} takes no value, but {values!r} follows it.")
        if values is None and isinstance(self.const, str):
            values = self.const
        namespace.occurrences.append((self.dest, option_string, "false" if negation else values))


def _build_parser(flags: Sequence[Flag]) -> _Parser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    known = [spelling for flag in flags for spelling in (flag.name, *flag.aliases)]
    for flag in flags:
        names = (flag.name, *flag.aliases)
        options: dict[str, Any] = {"dest": flag.name, "action": _Collect, "default": argparse.SUPPRESS}
        # A missing value is None here and not argparse's error, so that the sentence can say what is expected.
        parser.add_argument(*(f"--{name}" for name in names), nargs="*" if flag.type is list else "?", **options)
        if flag.type is bool:
            # absl's --nox, and --no_x, which Hugging Face's parser makes for what is on by default.
            negations = [f"--{no}{name}" for name in names for no in ("no", "no_") if f"{no}{name}" not in known]
            parser.add_argument(*negations, nargs="?", metavar="NEGATION", **options)
    return parser


def _normalize(argv: Sequence[str], flags: Sequence[Flag] = ()) -> list[str]:
    """Rewrite `-x`, `--x-y` and `--x -1e-5` to the forms argparse knows: `--x`, `--x_y` and `--x=-1e-5`."""
    tokens: list[str] = []
    for position, argument in enumerate(argv):
        if argument == "--":
            # The end of the flags in both parsers; the scripts take nothing but flags.
            if argv[position + 1 :]:
                _raise_unexpected(argv[position + 1], flags)
            return tokens
        match = _FLAG_TOKEN.fullmatch(argument)
        if match:
            tokens.append("--" + match[1].replace("-", "_") + (match[2] or ""))
        elif _NEGATIVE_NUMBER.fullmatch(argument) and tokens and re.fullmatch(r"--\w+", tokens[-1]):
            tokens[-1] += "=" + argument
        else:
            tokens.append(argument)
    return tokens


def _raise_unknown(rest: Sequence[str], flags: Sequence[Flag]) -> NoReturn:
    """The error for what argparse left over: a word that follows no flag, or a flag of no row."""
    unknown = next((token for token in rest if _FLAG_TOKEN.fullmatch(token)), None)
    if unknown is None:
        _raise_unexpected(rest[0], flags)
    name = unknown.removeprefix("--").split("=")[0]
    # Imported here because flag_hints needs Flag.
    from twinquant.flag_hints import nearest_flag

    near = nearest_flag(name, flags)
    hint = f"did you mean --{near}?" if near else "--help lists the flags that are known."
    raise UserError(f"unknown flag --{name}; {hint}")


def _raise_unexpected(word: str, flags: Sequence[Flag]) -> NoReturn:
    """The error for a word that follows no flag, with one of these flags as an example."""
    texts = {flag.name: flag.metavar or "TEXT" for flag in flags if flag.type is str and not flag.choices}
    name = next((name for name in ("output_dir", "output", *texts) if name in texts), None)
    example = f", as in --{name} {texts[name]}" if name is not None else ""
    raise UserError(f"unexpected argument {word!r}: every value must follow a flag{example}.")


def _convert(flag: Flag, spelling: str, raw: Any) -> Any:
    """The text of one occurrence as a value of the flag's type; UserError in one sentence otherwise."""
    if flag.type is bool and raw is None:
        return True
    if raw in ("", [""]) and "" in flag.quiet:
        return ""
    if raw is None or raw == [] or raw == "" or raw == [""]:
        how = "no value" if raw is None or raw == [] else "an empty value"
        raise UserError(f"{spelling} was given {how}; it takes {expected_value(flag)}.")
    if flag.type is list:
        return tuple(raw) if isinstance(raw, list) else (raw,)
    shown = HIDDEN if flag.name in SECRET_FLAGS else repr(raw)
    wrong = UserError(f"{spelling} takes {expected_value(flag)}, found {shown}.")
    if flag.type is bool:
        if raw.lower() not in TRUE_WORDS + FALSE_WORDS:
            raise wrong
        return raw.lower() in TRUE_WORDS
    if flag.choices and raw not in flag.choices:
        raise wrong
    if flag.type is str:
        return raw
    try:
        number = float(raw)
    except ValueError:
        raise wrong from None
    # The PyTorch original's --max_steps is a float (-1.0), so a whole number may be written with a point.
    if flag.type is int and 0 < number < 1 and spelling in _PARTS_OF_ALL_UPDATES:
        raise UserError(
            f"{spelling} takes {expected_value(flag)}, found {raw!r}: a part of all updates, as Hugging Face's scripts "
            "take it, has to be given as their number (examples / batch x epochs x this part)."
        )
    if not math.isfinite(number) or (flag.type is int and not number.is_integer()):
        raise wrong
    if flag.within:
        low, high, low_closed, high_closed = _interval(flag.within)
        if number < low or number > high or (number == low and not low_closed) or (number == high and not high_closed):
            raise wrong
    return int(number) if flag.type is int else number


def _interval(text: str) -> tuple[float, float, bool, bool]:
    """The two ends, and whether each belongs to the interval: (0.0, 100.0, False, True) for "(0, 100]"."""
    low, high = text[1:-1].split(",")
    return float(low), float(high), text[0] == "[", text[-1] == "]"


def _show(name: str, value: Any) -> str:
    """A flag's value for a note, which also gets into settings.json."""
    if name in SECRET_FLAGS:
        return HIDDEN
    return " ".join(value) if isinstance(value, tuple) else str(value)
