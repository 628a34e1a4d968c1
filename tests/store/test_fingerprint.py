from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agiqa.core.errors import AgiqaError
from agiqa.store import ABSENT, FingerprintMismatchError, difference, digest, require_same

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
JSON = st.recursive(
    LEAVES | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
FINGERPRINTS = st.dictionaries(st.text(max_size=3), JSON, max_size=4)


def test_digest_is_the_sha256_of_sorted_json() -> None:
    # printf '{"a":[1,true],"b":null}' | sha256sum
    expected = "08f0d52ecf92d01c82ac42a1919f98b245ae4a3024dfbabdba5b4cf7eca3d8f5"
    assert digest({"b": None, "a": (1, True)}) == expected


def test_digest_takes_any_mapping_and_ignores_the_order_of_keys() -> None:
    nested = MappingProxyType({"y": 2, "x": MappingProxyType({"d": 4, "c": 3})})
    assert digest(nested) == digest({"x": {"c": 3, "d": 4}, "y": 2})


@given(FINGERPRINTS, FINGERPRINTS)
def test_digests_are_equal_exactly_where_nothing_differs(a: dict, b: dict) -> None:
    assert (digest(a) == digest(b)) == (difference(a, b) == [])
    assert difference(a, a) == []


def test_difference_names_dotted_fields_and_both_values() -> None:
    a = {"model": {"id": "x", "revision": "1"}, "layers": [1, 2], "only_a": 0, "size": 224}
    b = {"model": {"id": "x", "revision": "2"}, "layers": [1, 3], "size": 224.0, "z": []}
    assert difference(a, b) == [
        ("layers.1", 2, 3),
        ("model.revision", "1", "2"),
        ("only_a", 0, ABSENT),
        ("size", 224, 224.0),
        ("z", ABSENT, []),
    ]


def test_one_and_true_differ() -> None:
    assert difference({"a": 1}, {"a": True}) == [("a", 1, True)]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": {"b": float("nan")}}, r"fingerprint\.a\.b: expected a JSON value, found float nan"),
        ({"a": [1, b"x"]}, r"fingerprint\.a\.1: .* found bytes b'x'"),
        ({"a": {1: 2}}, r"fingerprint\.a: expected string keys, found 1"),
    ],
)
def test_what_json_cannot_hold_is_named(value: dict, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        digest(value)


def test_a_mismatch_names_the_field_and_both_values_on_one_line() -> None:
    a, b = {"prompt": "one\ntwo", "pooling": "mean"}, {"prompt": "x" * 999, "pooling": "mean"}
    with pytest.raises(FingerprintMismatchError) as caught:
        require_same([a], [b], where="cache/demo/nano.zarr", advice="run `agiqa extract`")
    message = str(caught.value)
    assert message.startswith("cache/demo/nano.zarr: expected 0.prompt = 'one\\ntwo', found 'xxx")
    assert message.endswith("…; run `agiqa extract`")
    assert len(message) < 300
    assert "\n" not in message
    assert isinstance(caught.value, AgiqaError)
    require_same(a, dict(a), where="here", advice="")
