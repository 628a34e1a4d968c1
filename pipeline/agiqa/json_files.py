"""JSON out of files that others may have made: strict, and bounded in size, depth and number.

Python's own reader takes more than JSON (NaN, Infinity, a key twice, of which the last would win),
and what it accepts may be nested until the interpreter gives up, or be a small text that becomes
gigabytes. Here each of these is a ValueError that says so in words.
"""

import json
import math
from typing import Any

MOST_BYTES = 8 << 20
MOST_VALUES = 300_000  # and keys
DEEPEST = 64  # levels of lists and objects


def parse_json(text: bytes | str, most_bytes: int = MOST_BYTES) -> Any:
    """The value that the text stands for.

    Raises:
        ValueError: says in words why it is none: no JSON, too large or too deep, a number that is
            not finite or wider than 64 bits, a key twice, half of a surrogate pair.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(data) > most_bytes:
        raise ValueError(f"{len(data):,} bytes, more than {most_bytes:,}")
    if data.count(b",") + data.count(b":") + data.count(b"[") + data.count(b"{") > 2 * MOST_VALUES:
        raise ValueError(f"more than {MOST_VALUES:,} values")
    try:
        value = json.loads(
            data,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_constant,
        )
    except RecursionError:
        raise ValueError(f"more than {DEEPEST} levels") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON from byte {error.pos} on") from error
    except UnicodeDecodeError as error:
        raise ValueError("text that is not UTF-8") from error
    _require_usual(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for place, key in enumerate(keys) if key in keys[:place])
        raise ValueError(f"the key {twice!r} twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
        raise ValueError("a number wider than 64 bits")
    return int(digits)


def _number(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError("a number beyond all bounds")
    return value


def _constant(name: str) -> Any:
    raise ValueError(f"{name}, which is no JSON")


def _require_usual(value: Any) -> None:
    """ValueError for what nests too deep and for text that no file can hold."""
    left: list[tuple[Any, int]] = [(value, 0)]
    while left:
        item, depth = left.pop()
        if depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} levels")
        if isinstance(item, dict):
            left += [(inner, depth + 1) for pair in item.items() for inner in pair]
        elif isinstance(item, list):
            left += [(inner, depth + 1) for inner in item]
        elif isinstance(item, str) and not item.isascii():
            try:
                item.encode()
            except UnicodeEncodeError:
                raise ValueError("half of a surrogate pair") from None
