"""TensorBoard's event files, written without TensorBoard: one small file for each stage, in one step.

    TensorBoard("runs/tiny").finished(facts)      # runs/tiny/tensorboard/events.out.tfevents.1763901234.9f2c...

    tensorboard --logdir runs                     # pip install 'fdd-ray[tracking]'

A file's name and its bytes follow from the manifests alone. Written again they are the same, and files of stages
that were set aside are removed, so a run that is resumed shows each point once. TensorBoard reads the files in the
order of their names and looks back at none, so names sort by when stages began. Object stores get the same files.

An event file is a list of records (length, its checksum, data, its checksum). Each is a protocol buffer ``Event``:
1 wall_time (double), 2 step (int64), 3 file_version (string), 5 summary, whose field 1 repeats {1 tag, 2 simple_value
(float)}.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from fdd_ray.store import files
from fdd_ray.store.manifest import find_stages
from fdd_ray.tracking.facts import Facts, mark_of

FOLDER: Final = "tensorboard"
_PREFIX: Final = "events.out.tfevents."
_VERSION: Final = b"brain.Event:2"
_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5  # how protocol buffers write a field


class TensorBoard:
    """Writes a run's event files.

    Args:
        directory: The run directory.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._folder = files.join(directory, FOLDER)
        self._there: set[str] | None = None

    def finished(self, facts: Facts) -> None:
        """Write the file of a stage, unless it is there."""
        if self._there is None:
            self._there = self._tidied()
        name = _name(facts.mark)
        if name not in self._there:
            files.write_bytes(files.join(self._folder, name), event_file(facts))
            self._there.add(name)

    def close(self, failed: bool) -> None:
        """Nothing is open."""

    def _tidied(self) -> set[str]:
        """The files that are there, once those of stages that are no more have been removed."""
        known = {_name(mark_of(found.manifest)) for found in find_stages(self._directory) if found.manifest}
        there = {name for name in files.list_names(self._folder) if name.startswith(_PREFIX)}
        for name in there - known:
            files.remove(files.join(self._folder, name))
        return there & known


def event_file(facts: Facts) -> bytes:
    """The content of the file of a stage."""
    begin = _time(facts.time) + _field(3, _BYTES, _VERSION)
    values = b"".join(
        _field(1, _BYTES, _field(1, _BYTES, name.encode()) + _field(2, _FLOAT, struct.pack("<f", value)))
        for name, value in sorted(facts.values.items())
    )
    scalars = _time(facts.time) + _field(2, _VARINT, _varint(facts.step)) + _field(5, _BYTES, values)
    return b"".join(_record(event) for event in (begin, scalars))


def _name(mark: str) -> str:
    return f"{_PREFIX}{mark}"


def _time(seconds: float) -> bytes:
    return _field(1, _DOUBLE, struct.pack("<d", seconds))


def _field(number: int, kind: int, content: bytes) -> bytes:
    length = _varint(len(content)) if kind == _BYTES else b""
    return _varint(number << 3 | kind) + length + content


def _varint(number: int) -> bytes:
    """An integer in groups of seven bits; a negative one as its 64-bit complement."""
    number &= (1 << 64) - 1
    groups = []
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    """CRC-32C, rotated and shifted as TensorFlow's records have it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _crc_table() -> Iterator[int]:
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        yield byte


_CRC: Final = tuple(_crc_table())
