"""Sorted string tables: the file format of a TensorFlow bundle's index (LevelDB's table format).

A table is a run of data blocks, an index block that says where each data block lies, and a footer of 48 bytes. A block
is a list of entries (length shared with the previous key, rest of the key, value), an array of restart points, then one
byte for the compression and a masked CRC-32C. Source of the format: LevelDB's doc/table_format.md.
"""

from collections.abc import Iterable, Iterator

import google_crc32c
import numpy as np

from checkpoints.protobuf_wire import read_varint, varint

_FOOTER_SIZE = 48
_TRAILER_SIZE = 5  # compression byte and checksum behind every block
_MAGIC = bytes.fromhex("57fb808b247547db")
_BLOCK_SIZE = 4096  # bytes after which a new data block is begun
_LONGEST_KEY = 4096  # bytes; keys share what they begin with, so that a small file could ask for any memory
_RESTART_INTERVAL = 16  # entries after which a key is written whole again
_NO_COMPRESSION, _SNAPPY = 0, 1


class TableError(ValueError):
    """The bytes are not a whole, undamaged table; the message continues a sentence that begins with the file's name."""


def masked_crc32c(data: bytes | np.ndarray) -> int:
    """CRC-32C, rotated and offset as LevelDB and TensorFlow store it; `data` is bytes or a contiguous array."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_table(data: bytes) -> dict[bytes, bytes]:
    """All entries of a table in key order; TableError says what is wrong with it."""
    if len(data) < _FOOTER_SIZE or data[-len(_MAGIC) :] != _MAGIC:
        raise TableError("is truncated or is not the index of a TensorFlow checkpoint")
    try:
        footer = data[-_FOOTER_SIZE:]
        _, position = _read_handle(footer, 0)  # the metaindex block, which TensorFlow leaves empty
        (offset, size), _ = _read_handle(footer, position)
        entries: dict[bytes, bytes] = {}
        for _, handle in _block_entries(_read_block(data, offset, size)):
            (offset, size), _ = _read_handle(handle, 0)
            entries.update(_block_entries(_read_block(data, offset, size)))
    except TableError:
        raise
    except ValueError as error:
        raise TableError(f"is damaged: {error}") from error
    return entries


def write_table(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A table of `entries`, which must be sorted by key, each key once."""
    table = bytearray()
    index = []
    block: list[tuple[bytes, bytes]] = []
    size = 0
    for key, value in entries:
        block.append((key, value))
        size += len(key) + len(value)
        if size >= _BLOCK_SIZE:
            index.append((key, _append_block(table, block, _RESTART_INTERVAL)))
            block, size = [], 0
    if block:
        index.append((block[-1][0], _append_block(table, block, _RESTART_INTERVAL)))
    footer = _append_block(table, [], _RESTART_INTERVAL) + _append_block(table, index, 1)
    return bytes(table) + footer.ljust(_FOOTER_SIZE - len(_MAGIC), b"\0") + _MAGIC


def _read_handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """A block's (offset, size) and the position after them."""
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (offset, size), position


def _read_block(data: bytes, offset: int, size: int) -> bytes:
    end = offset + size
    if end + _TRAILER_SIZE > len(data) - _FOOTER_SIZE:
        raise TableError("is damaged: a block lies beyond its end")
    checksum = int.from_bytes(data[end + 1 : end + _TRAILER_SIZE], "little")
    if masked_crc32c(data[offset : end + 1]) != checksum:
        raise TableError(f"is damaged: the checksum of the block at byte {offset} does not match")
    if data[end] == _SNAPPY:
        raise TableError("is compressed with snappy, which is not supported; save the checkpoint uncompressed")
    if data[end] != _NO_COMPRESSION:
        raise TableError(f"has a block of the unknown compression {data[end]}")
    return data[offset:end]


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(block) < 4:
        raise TableError("is damaged: a block is too short")
    end = len(block) - 4 * (int.from_bytes(block[-4:], "little") + 1)
    if end < 0:
        raise TableError("is damaged: a block has more restart points than bytes")
    position, key = 0, b""
    while position < end:
        shared, position = read_varint(block, position)
        rest, position = read_varint(block, position)
        length, position = read_varint(block, position)
        if shared > len(key) or rest + length > end - position:
            raise TableError("is damaged: an entry of a block does not fit")
        if shared + rest > _LONGEST_KEY:
            raise TableError(f"is damaged: a name has {shared + rest} bytes, expected at most {_LONGEST_KEY}")
        key = key[:shared] + block[position : position + rest]
        position += rest + length
        yield key, block[position - length : position]


def _append_block(table: bytearray, entries: list[tuple[bytes, bytes]], restart_interval: int) -> bytes:
    """Appends a block to `table` and returns its handle."""
    block = bytearray()
    restarts = [0]
    previous = b""
    for number, (key, value) in enumerate(entries):
        shared = 0
        if number % restart_interval:
            while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
                shared += 1
        elif number:
            restarts.append(len(block))
        block += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        previous = key
    for restart in (*restarts, len(restarts)):
        block += restart.to_bytes(4, "little")
    handle = varint(len(table)) + varint(len(block))
    block.append(_NO_COMPRESSION)
    table += block + masked_crc32c(bytes(block)).to_bytes(4, "little")
    return handle
