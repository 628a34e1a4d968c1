"""What data sets and targets may be called: what folders, DVC and settings can all carry."""

import pytest

from agiqa.core.errors import AgiqaError
from agiqa.core.names import data_set_name, target_name
from agiqa.data.sources import ALIASES, KINDS


@pytest.mark.parametrize("name", [*KINDS, *ALIASES, "my-set_2", "7", "A" * 64])
def test_names_of_data_sets(name: str) -> None:
    assert data_set_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "a.b", "a b", "a/b", "../a", "/a", "-a", "_a", "a\\b", "${a}", "a+b", "a@b",
        "a\n", "a;b", "ä", "a" * 65, "a:b", "~a", None, 3,
    ],
)  # fmt: skip
def test_no_names_of_data_sets(name: object) -> None:
    with pytest.raises(AgiqaError, match=r"^NAME: expected a plain name, found "):
        data_set_name(name, "NAME")


def test_names_of_targets() -> None:
    for name in ("mos", "MOS (1-5)", "q&a", "Qualität", "自然さ", "a.b"):
        assert target_name(name, "t.csv") == name
    for odd in (
        "",
        " mos",
        "mos ",
        "a/b",
        "..",
        ".a",
        "-a",
        "a,b",
        "a\x1b[2J",
        "a\u200b",
        "é" * 51,
        3,
    ):
        with pytest.raises(AgiqaError, match=r"^t\.csv: expected the name of a score"):
            target_name(odd, "t.csv")
