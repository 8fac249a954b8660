"""Which flag an unknown one may have been meant for."""

import difflib
from collections.abc import Sequence

from twinquant.flags import Flag

SURE = 0.9  # of difflib's ratio: one letter in ten
LIKELY = 0.8
# Shorter names stand in many others, with other meanings: --cpu in --cpu_offload.
SHORTEST_PART = 6


def nearest_flag(name: str, flags: Sequence[Flag]) -> str | None:
    """The spelling of a known flag for an unknown `name`, both without dashes; None where none is near enough.

    In this order: a name with a slip of the pen; the only one that begins with `name`; one that `name` begins with
    (do_calib for do_calibration) or ends with, as a word (checkpoint for init_checkpoint); one that begins alike and
    differs a little. Negations (nodo_train) are offered only for names that begin like one.
    """
    known = [spelling for flag in flags for spelling in (flag.name, *flag.aliases)]
    switches = [spelling for flag in flags if flag.type is bool for spelling in (flag.name, *flag.aliases)]
    candidates = [*known, *(f"no{spelling}" for spelling in switches)] if name.startswith("no") else known
    sure = difflib.get_close_matches(name, candidates, n=1, cutoff=SURE)
    if sure:
        return sure[0]
    parts = [spelling for spelling in known if len(spelling) >= SHORTEST_PART]
    beginnings = [
        part for part in parts if name.startswith(f"{part}_") or (name.startswith(part) and 2 * len(part) >= len(name))
    ]
    longer = [spelling for spelling in known if spelling.startswith(name)]
    endings = [part for part in parts if name.endswith(f"_{part}")]
    for found in (longer if len(longer) == 1 else [], beginnings, endings):
        if found:
            return max(found, key=len)
    alike = [spelling for spelling in candidates if spelling[0] == name[0]]
    likely = difflib.get_close_matches(name, alike, n=1, cutoff=LIKELY)
    return likely[0] if likely else None
