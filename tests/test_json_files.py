"""JSON of others: what is JSON comes out, all else is said in words, in bounded time and memory."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agiqa.json_files import parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@given(VALUES)
def test_json_comes_back(value: object) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON from byte 0"),
        ('{"a": 1', "no JSON from byte 7"),
        (b"\xff\xfe\xff", "not UTF-8"),
        ('{"a": NaN}', "NaN, which is no JSON"),
        ("[-Infinity]", "-Infinity, which is no JSON"),
        ("[1e999]", "beyond all bounds"),
        ("9" * 3000, "wider than 64 bits"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' twice"),
        ('["\\ud800"]', "half of a surrogate pair"),
        ("[" * 70 + "]" * 70, "more than 64 levels"),
        ("[" * 100_000 + "]" * 100_000, "more than 64 levels"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "more than 64 levels"),
        (json.dumps({str(key): key for key in range(10**6)}), "values|bytes"),
        ("[" + "[]," * 10**6 + "[]]", "more than 300,000 values"),
        (" " * (9 << 20), "9,437,184 bytes, more than 8,388,608"),
    ],
)  # fmt: skip
def test_what_is_none_is_said(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_numbers_at_the_limits() -> None:
    assert parse_json("[-9223372036854775808, 18446744073709551615, -0.0, 5e-324]") == [
        -(2**63), 2**64 - 1, -0.0, math.ulp(0.0)]  # fmt: skip
