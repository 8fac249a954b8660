"""The few parts of the protocol buffer wire format that a TensorFlow bundle's index needs.

Source of the format: protobuf.dev, "Encoding". Only varints, 32-bit, 64-bit and length-delimited fields exist here.
"""

from collections.abc import Iterator
from mmap import mmap

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def read_varint(data: bytes | mmap, position: int) -> tuple[int, int]:
    """The unsigned varint (at most 64 bits) at `position` and the position after it; ValueError if it does not end."""
    value = 0
    for count, byte in enumerate(data[position : position + 10]):
        value |= (byte & 0x7F) << (7 * count)
        if not byte & 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position + count + 1
    raise ValueError("a number is cut off")


def varint(value: int) -> bytes:
    """`value` (0 to 2**64 - 1) as a varint."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def signed(value: int) -> int:
    """A varint read as int64 (negative numbers are stored as two's complement)."""
    return value - (1 << 64) if value >= 1 << 63 else value


def field_places(data: bytes | mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Per field of the message in data[start:end], in file order: number, wire type, and three positions.

    These are where the field begins, and where its content begins and ends. ValueError if the message is damaged.
    """
    position = start
    while position < end:
        first = position
        tag, position = read_varint(data, position)
        kind = tag & 7
        if kind == VARINT:
            content = position
            _, position = read_varint(data, position)
        elif kind in (FIXED32, FIXED64, BYTES):
            length = {FIXED32: 4, FIXED64: 8}.get(kind, 0)
            if kind == BYTES:
                length, position = read_varint(data, position)
            content = position
            position += length
        else:
            raise ValueError(f"a field has the unknown wire type {kind}")
        if position > end:
            raise ValueError("a field is cut off")
        yield tag >> 3, kind, first, content, position


def read_fields(message: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Yields (field number, wire type, value) of a message in file order; ValueError if the message is damaged."""
    for number, kind, _, content, last in field_places(message, 0, len(message)):
        if kind == VARINT:
            yield number, kind, read_varint(message, content)[0]
        else:
            raw = message[content:last]
            yield number, kind, raw if kind == BYTES else int.from_bytes(raw, "little")


def varint_field(number: int, value: int) -> bytes:
    """An integer field; nothing for 0, which is what an absent field means."""
    return varint(number << 3 | VARINT) + varint(value) if value else b""


def bytes_field(number: int, value: bytes) -> bytes:
    """A length-delimited field (a nested message or a string)."""
    return varint(number << 3 | BYTES) + varint(len(value)) + value


def fixed32_field(number: int, value: int) -> bytes:
    """A 32-bit field."""
    return varint(number << 3 | FIXED32) + value.to_bytes(4, "little")
