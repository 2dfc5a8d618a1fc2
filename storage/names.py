"""Names, digests and canonical JSON: what addresses are made of, wherever the bytes are."""

from __future__ import annotations

import hashlib
import json
from urllib.parse import quote

LONGEST_SEGMENT = 200  # bytes; file systems allow 255, and suffixes and drafts need some


def escape(name: str) -> str:
    """A name as one safe path segment: percent-encoded UTF-8, never empty, never with a leading dot.

    >>> escape("van-gogh"), escape("a/b é"), escape("..")
    ('van-gogh', 'a%2Fb%20%C3%A9', '%2E.')

    Raises ValueError if the name is empty, too long or not Unicode text.
    """
    try:
        segment = quote(name, safe="")
    except UnicodeEncodeError:
        raise ValueError(f"the name {name!r} is not Unicode text; rename it") from None
    if segment.startswith("."):
        segment = "%2E" + segment[1:]
    if not 0 < len(segment) <= LONGEST_SEGMENT:
        raise ValueError(
            f"the name {name[:40]!r} takes {len(segment)} bytes as a path, but 1 to {LONGEST_SEGMENT} fit; rename it"
        )
    return segment


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys, no spaces, ASCII only: equal values give equal bytes. NaN raises ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(value: object, length: int = 16) -> str:
    """The first hex digits of the sha256 of a value's canonical JSON.

    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    return sha256(canonical_json(value))[:length]


def sha256(data: bytes) -> str:
    """The sha256 of some bytes, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()
