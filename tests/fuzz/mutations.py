"""Damage to bytes, to JSON documents, and to safetensors files."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

DEEP = "@deep@"
"""Placeholder in a document of which `to_json` makes a list nested a hundred thousand times."""

INTEGERS = (0, 1, -1, 2, 3, 7, 8, 127, 255, 256, 2**15, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**63, 10**9, -(10**9))
HOSTILE: tuple[Any, ...] = (
    *INTEGERS,
    *(10**400, 1.9, 0.5, -0.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan")),
    *(None, True, False, "", " ", "null", "1e1000000000", "30/0", "0/1", "1/1000000007", "nan", "9" * 5000),
    *("x" * 3000, "a\nb", "\x1b[31mred", "a\u2028b", "\x00", "\ud800", "../../../etc/passwd", "/dev/zero", "."),
    *("http://127.0.0.1:9/x.mp4", "file:///etc/passwd", "-", "~", "$HOME", "{0}", "%s", "mse", "scalar", "vector"),
    *([], {}, [[]], [None], [1, 2, 3], [10**9] * 3, [0] * 5000, {"kind": "scalar"}, {"": 1}, {"x": {"x": {}}}, DEEP),
)


def bits_flipped(rng: random.Random, data: bytes) -> bytes:
    """Flip one to three bits."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3)) if data else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def damaged(rng: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Damage bytes in one or more ways. The result differs from `data`."""
    result = data
    while result == data:
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            result = rng.choice(_WAYS)(rng, result, others or (data,))
    return result


def _flip(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return bits_flipped(rng, data)


def _bytes(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, count = _span(rng, data)
    filling = rng.choice((rng.randbytes(count), b"\0" * count, b"\xff" * count, b" " * count))
    return data[:start] + filling + data[start + count :]


def _integer(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice(INTEGERS) % 256**size
    start = rng.randrange(len(data) + 1)
    return data[:start] + value.to_bytes(size, rng.choice(("little", "big"))) + data[start + size :]


def _cut(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _remove(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, count = _span(rng, data)
    return data[:start] + data[start + count :]


def _repeat(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, count = _span(rng, data)
    return data[: start + count] + data[start:]


def _insert(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.randbytes(rng.randint(1, 16)) + data[start:]


def _splice(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others)
    start = rng.randrange(len(data) + 1)
    return data[:start] + other[rng.randrange(len(other) + 1) :]


def _swap(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    a, b, c = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _span(rng: random.Random, data: bytes) -> tuple[int, int]:
    return rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 16, 64, 256, max(1, len(data) // 4)))


_WAYS: tuple[Callable[[random.Random, bytes, Sequence[bytes]], bytes], ...] = (
    *(_flip, _flip, _flip, _bytes, _bytes, _integer, _integer, _cut),
    *(_remove, _repeat, _insert, _splice, _swap),
)


def damaged_near(rng: random.Random, data: bytes, names: Sequence[bytes], reach: int = 64) -> bytes:
    """Damage the bytes that follow one of these names, such as the name of an atom in an MP4 file."""
    places = [place for name in names for place in _places(data, name)]
    if not places:
        return damaged(rng, data)
    start = rng.choice(places)
    return data[:start] + damaged(rng, data[start : start + reach]) + data[start + reach :]


def _places(data: bytes, name: bytes) -> Iterator[int]:
    place = data.find(name)
    while place >= 0:
        yield place + len(name)
        place = data.find(name, place + 1)


def document_changed(rng: random.Random, document: Any) -> Any:
    """Return a copy of a JSON document with one to three changes of its structure or values."""
    result = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_nodes(result))
        if not places:
            return rng.choice(HOSTILE)
        parent, key = rng.choice(places)
        _change(rng, parent, key, places)
    return result


def _nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a document, as its parent and the key or index in it."""
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if type(value) is list else []
    for key, inner in items:
        yield value, key
        yield from _nodes(inner)


def _change(rng: random.Random, parent: Any, key: Any, places: Sequence[tuple[Any, Any]]) -> None:
    way = rng.randrange(8)
    value = parent[key]
    if way == 0:
        del parent[key]
    elif way == 1 and isinstance(parent, dict):
        parent[rng.choice((f"{key}x", str(key)[:-1], "", str(key).upper(), "kind"))] = parent.pop(key)
    elif way == 2:
        other, name = rng.choice(places)
        parent[key] = copy.deepcopy(other[name]) if _holds(other, name) else value
    elif way == 3:
        parent[key] = [value] if rng.random() < 0.5 else {"value": value}
    elif way == 4 and isinstance(value, int | float):
        parent[key] = rng.choice((value + 1, value - 1, -value, value * 2, value // 2, value * 10**6, str(value)))
    else:
        parent[key] = copy.deepcopy(rng.choice(HOSTILE))


def _holds(parent: Any, key: Any) -> bool:
    return key in parent if isinstance(parent, dict) else key < len(parent)


def to_json(document: Any, indent: int | None = None) -> str:
    """Write a document as JSON, with NaN, infinities and the deep list."""
    return json.dumps(document, indent=indent).replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000)


def from_safetensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Split a safetensors file into its header and the bytes of the tensors."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def to_safetensors(header: Any, tensors: bytes) -> bytes:
    """Join a header and the bytes of tensors to a safetensors file, right or not."""
    text = to_json(header).encode("utf-8", errors="surrogatepass")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + tensors


def safetensors_changed(rng: random.Random, data: bytes) -> bytes:
    """Change names, types, shapes, metadata or values of a safetensors file, whose structure stays valid in part."""
    header, tensors = from_safetensors(data)
    names = [name for name in header if name != "__metadata__"]
    way = rng.randrange(5)
    if way == 0 or not names:
        return to_safetensors(document_changed(rng, header), tensors)
    entry = header[rng.choice(names)]
    if way == 1:  # another type of the same size, or not
        entry["dtype"] = rng.choice(("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "U16", "I8", "U8", "BOOL"))
    elif way == 2:
        shape = entry["shape"]
        entry["shape"] = rng.choice(([], [0], [2**40], [*shape, 1], shape[::-1], [-1], shape[1:]))
    elif way == 3:  # values that are no numbers
        start, stop = entry["data_offsets"]
        at = rng.randrange(start, max(start + 1, stop - 3)) // 4 * 4
        bad = rng.choice((b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\xff\xff", b"\xff\xff\x7f\x7f"))
        tensors = tensors[:at] + bad + tensors[at + 4 :]
    else:
        header[rng.choice(names)] = dict(entry)  # two names of the same bytes
    return to_safetensors(header, tensors)
