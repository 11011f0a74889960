"""What an image is, told from its size, header and samples of its content, wherever it lies."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any, BinaryIO

_END_BYTES = 64 * 1024
_SAMPLES = 64
_SAMPLE_BYTES = 4 * 1024


def evenly(length: int, count: int) -> list[int]:
    """Return up to ``count`` positions spread evenly over ``range(length)``, both ends included.

    >>> evenly(10, 4)
    [0, 3, 6, 9]
    """
    if length <= count:
        return list(range(length))
    return [i * (length - 1) // (count - 1) for i in range(count)]


def content_identity(facts: dict[str, Any], content: Iterable[bytes]) -> str:
    """Return the SHA-256, in hexadecimal, of facts and pieces of content."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for piece in content:
        digest.update(len(piece).to_bytes(8, "little"))
        digest.update(piece)
    return digest.hexdigest()


def sampled_parts(size_bytes: int) -> list[tuple[int, int]]:
    """Return start and length of what is looked at of a file.

    That are its first and last 64 KiB and 64 pieces of 4 KiB between them.
    """
    parts = [(0, _END_BYTES)]
    parts += [(at, _SAMPLE_BYTES) for at in evenly(max(0, size_bytes - _SAMPLE_BYTES), _SAMPLES)]
    parts += [(max(0, size_bytes - _END_BYTES), _END_BYTES)]
    return [(at, min(length, size_bytes - at)) for at, length in parts]


def file_samples(file: BinaryIO, size_bytes: int) -> Iterable[bytes]:
    """Yield what is looked at of a file."""
    for at, length in sampled_parts(size_bytes):
        file.seek(at)
        yield file.read(length)
