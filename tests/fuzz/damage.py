"""Ways to damage a valid file. Each takes a random source and the file's bytes, and gives other bytes."""

import copy
import json
import struct
from random import Random
from typing import Any

from checkpoints.protobuf_wire import read_fields
from checkpoints.table_format import read_table, write_table

# Values that JSON can hold in the place of the expected ones. What json.dumps would refuse or alter goes in as text.
MANY_DIGITS, DEEP, TWICE = "<many digits>", "<deep>", "<twice>"
ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan"),
    "", " ", "0", "\ud800", "\udfff text", "\x00", "../..", "a" * 5000, "\u2028", "\ufeff", "\r\n\t", [], {}, [[]],
    [None], {"": None}, ["a", 1], [[0] * 40] * 40, MANY_DIGITS, DEEP, TWICE,
]  # fmt: skip
ODD_TEXTS = [
    b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\t", b'"', b"\r", b"\n", b"\n\n", b"\x1c", "\u2028".encode(),
    b"," * 50, b"9" * 5000, b"nan", b"-1", b"1e999", b"[" * 2000, b"\xed\xa0\x80", b"a" * 70000, b"-", b"[MASK]",
    b"#", b"'",
]  # fmt: skip


def flip_bytes(rng: Random, data: bytes) -> bytes:
    """One to eight bytes get another value."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        if damaged:
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return bytes(damaged)


def cut(rng: Random, data: bytes) -> bytes:
    """The file ends early, or lacks its beginning."""
    kept = rng.randint(0, max(0, len(data) - 1))
    return data[:kept] if rng.randint(0, 3) else data[kept:]


def move_bytes(rng: Random, data: bytes) -> bytes:
    """A stretch is left out, said twice, or something odd is put in."""
    start = rng.randint(0, len(data))
    end = min(len(data), start + rng.choice([0, 1, 4, 50, 4000]))
    inserted = rng.choice([b"", data[start:end] * 2, rng.choice(ODD_TEXTS)])
    return data[:start] + inserted + data[end:]


def change_lines(rng: Random, data: bytes) -> bytes:
    """A line or a field of one is left out, doubled, moved, or replaced."""
    lines = data.split(b"\n")
    for _ in range(rng.randint(1, 2)):
        index = rng.randrange(len(lines))
        separator = b"\t" if b"\t" in lines[index] else b","
        fields = lines[index].split(separator)
        place = rng.randrange(len(fields))
        kind = rng.randint(0, 5)
        if kind == 0:
            lines[index : index + 1] = []
        elif kind == 1:
            lines.insert(index, lines[rng.randrange(len(lines))])
        else:
            if kind == 2:
                del fields[place]
            elif kind == 3:
                fields.insert(place, fields[place])
            else:
                fields[place] = rng.choice(ODD_TEXTS) + (fields[place] if kind == 5 else b"")
            lines[index] = separator.join(fields)
        lines = lines or [b""]
    return b"\n".join(lines)


def change_json(rng: Random, data: bytes) -> bytes:
    """A value somewhere in a JSON file gets another type, is left out, doubled or renamed."""
    if b"\n{" in data:  # JSON lines
        lines = data.splitlines()
        index = rng.randrange(len(lines))
        lines[index] = change_json(rng, lines[index])
        return b"\n".join(lines)
    value = change_value(rng, json.loads(data))
    return json_bytes(value)


def change_value(rng: Random, value: Any) -> Any:
    """A JSON value with one or two changes."""
    value = [copy.deepcopy(value)]
    for _ in range(rng.randint(1, 2)):
        places: list[tuple[Any, Any]] = []
        open_places: list[Any] = [value]
        while open_places:
            holder = open_places.pop()
            for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
                places.append((holder, key))
                if isinstance(holder[key], dict | list):
                    open_places.append(holder[key])
        if not places:
            break
        holder, key = rng.choice(places)
        kind = rng.randint(0, 5)
        if kind == 0 and holder is not value:
            del holder[key]
        elif kind == 1 and isinstance(holder, list) and holder is not value:
            holder.insert(key, copy.deepcopy(holder[key]))
        elif kind == 1 and isinstance(holder, dict):
            holder[str(rng.choice(["", "x", "0", "\ud800", key + " "]))] = holder.pop(key)
        elif kind == 2:
            other_holder, other = rng.choice(places)
            holder[key] = copy.deepcopy(other_holder[other])
        else:
            holder[key] = copy.deepcopy(rng.choice(ODD_VALUES))  # a later change must not reach the list itself
    return value[0] if value else None


def json_bytes(value: Any) -> bytes:
    """JSON, with what its own writer cannot say."""
    text = json.dumps(value)
    text = text.replace(json.dumps(MANY_DIGITS), "9" * 5000).replace(json.dumps(DEEP), "[" * 5000 + "]" * 5000)
    return text.replace(json.dumps(TWICE), '{"a": 1, "a": [], "b": "\\ud800"}').encode("ascii")


def change_header(rng: Random, data: bytes) -> bytes:
    """A safetensors file whose JSON header is changed, with the right length in front, or a wrong one."""
    size = struct.unpack("<Q", data[:8])[0]
    header = change_value(rng, json.loads(data[8 : 8 + size]))
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if isinstance(metadata, dict) and metadata and rng.randint(0, 1):  # texts that hold JSON themselves
        key = rng.choice(sorted(metadata))
        try:
            metadata[key] = json_bytes(change_value(rng, json.loads(metadata[key]))).decode("ascii")
        except (ValueError, TypeError):
            metadata[key] = rng.choice(["", "null", "[" * 3000, "{}", "\ud800"])
    if isinstance(header, dict) and rng.randint(0, 2) == 0:
        entry = rng.choice([one for one in header.values() if isinstance(one, dict)] or [{}])
        kinds = ["BF16", "F16", "F64", "I8", "I32", "I64", "U8", "BOOL", "F8_E4M3", "F4", "C64", "U64"]
        entry["dtype"] = rng.choice(kinds)
        if isinstance(entry.get("shape"), list) and rng.randint(0, 1):
            entry["shape"] = rng.choice([[], [0], [2**40, 2**40], entry["shape"][::-1], [*entry["shape"], 1]])
    encoded = json_bytes(header)
    length = len(encoded) if rng.randint(0, 9) else rng.choice([0, 1, 2**31, 2**63, len(encoded) + 9])
    return struct.pack("<Q", length) + encoded + data[8 + size :]


def change_table(rng: Random, data: bytes) -> bytes:
    """A bundle's index with right checksums around entries that are changed, exchanged, renamed or left out."""
    table = read_table(data)
    for _ in range(rng.randint(1, 3)):
        key, other = rng.choice(sorted(table)), rng.choice(sorted(table))
        kind = rng.randint(0, 4)
        if kind == 0:
            table[key] = flip_bytes(rng, table[key])
        elif kind == 1:
            table[key] = table[other]
        elif kind == 2:
            table[key[: rng.randint(0, len(key))] + rng.choice([b"", b"\xff", b"/kernel", b"\x00"])] = table.pop(key)
        elif kind == 3:
            table[rng.choice([b"global_step", b"bert/embeddings/word_embeddings", b"_CHECKPOINTABLE_OBJECT_GRAPH"])] = (
                table[other]
            )
        elif len(table) > 1:
            del table[key]
    return write_table(sorted(table.items()))


def change_protobuf(rng: Random, data: bytes, depth: int = 0) -> bytes:
    """A protocol buffer in which one field, perhaps deep inside, gets another value, is left out or doubled."""
    from checkpoints.protobuf_wire import varint

    try:
        fields = list(read_fields(data))
    except ValueError:
        return flip_bytes(rng, data)
    if not fields:
        return rng.choice([b"\x08\x01", data])
    chosen = rng.randrange(len(fields))
    parts = []
    for index, (number, kind, value) in enumerate(fields):
        times = 1
        if index == chosen:
            action = rng.randint(0, 7)
            if action == 0:
                times = 0
            elif action == 1:
                times = 2
            elif isinstance(value, bytes):
                value = change_protobuf(rng, value, depth + 1) if value and depth < 5 else rng.choice(ODD_TEXTS[:20])
            else:
                value = rng.choice([0, 1, 2, 7, 16, 2**31, 2**63, 2**64 - 1, value + 1])
        if kind == 2:
            encoded = varint(number << 3 | 2) + varint(len(value)) + value
        elif kind == 0:
            encoded = varint(number << 3) + varint(value & (1 << 64) - 1)
        else:
            width = 8 if kind == 1 else 4
            encoded = varint(number << 3 | kind) + (value & (1 << 8 * width) - 1).to_bytes(width, "little")
        parts.append(encoded * times)
    return b"".join(parts)


BYTES = (flip_bytes, cut, move_bytes)
TEXT = (*BYTES, change_lines)
JSON = (*BYTES, change_json)
SAFETENSORS = (*BYTES, change_header)
