from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agiqa.errors import AgiqaError
from agiqa.prompts import PromptSet, bundled_folder, read_prompt_set

Write = Callable[..., str]


def test_ma_agiqa_is_verbatim() -> None:
    """The texts of the paper's reference implementation, questions before the image."""
    chosen = read_prompt_set("ma_agiqa")
    assert chosen.text("semantic_content") == (
        "USER: Evaluate the input image to determine if its quality is compromised due to a lack "
        "of meaningful semantic content.\n",
        " ASSISTANT:",
    )
    assert chosen.text("coherence") == (
        "USER: Evaluate if the image quality is compromised due to violations of coherence.\n",
        " ASSISTANT:",
    )
    assert list(chosen.prompts) == ["semantic_content", "coherence"]
    assert (chosen.order, chosen.pooling) == ("text_first", "mean")
    assert "arXiv:2404.17762" in chosen.citation


@pytest.mark.parametrize("path", sorted(bundled_folder().glob("*.yaml")), ids=lambda p: p.stem)
def test_every_bundled_set_is_valid_and_named_as_its_file(path: Path) -> None:
    assert read_prompt_set(path.stem).name == path.stem


@given(st.text(min_size=1), st.text())
def test_any_question_reaches_the_model_unchanged(question: str, template_end: str) -> None:
    """Braces in a question are text, not places to fill in."""
    end = template_end.replace("{", "(")
    first = PromptSet("a", "", "text_first", "Q: {prompt}\n{image}" + end, "mean", {"q": question})
    assert first.text("q") == (f"Q: {question}\n", end)
    last = PromptSet("a", "", "image_first", "{image}{prompt}" + end, "mean", {"q": question})
    assert last.text("q") == ("", question + end)


def test_the_working_folder_comes_before_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_prompts: Write
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "coherence" in read_prompt_set("ma_agiqa").prompts
    (tmp_path / "prompts").mkdir()
    write_prompts({"mine": "Is it sharp?"}, "prompts/ma_agiqa.yaml")
    assert read_prompt_set("ma_agiqa").prompts == {"mine": "Is it sharp?"}


def test_unknown_set_lists_the_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_prompts: Write
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts").mkdir()
    write_prompts({"a": "b"}, "prompts/mine.yaml")
    with pytest.raises(AgiqaError, match=r"Unknown prompt set 'other'; known: ma_agiqa, mine\."):
        read_prompt_set("other")
    with pytest.raises(AgiqaError, match=r"Prompt set other\.yaml does not exist"):
        read_prompt_set("other.yaml")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"templat": "x"}, "unknown key 'templat'; did you mean 'template'"),
        ({"template": "USER: {image}"}, r"must hold \{prompt\} exactly once"),
        ({"template": "{prompt} {image} {image}"}, r"must hold \{image\} exactly once"),
        ({"template": None}, r"must hold \{prompt\} exactly once"),
        ({"order": "sideways"}, "one of text_first, image_first; found 'sideways'"),
        ({"order": "image_first"}, "order says image_first, but the template is text_first"),
        ({"pooling": "max"}, "pooling is one of mean; found 'max'"),
        ({"prompts": {}}, "at least one name to a non-empty text"),
        ({"prompts": {"a": "  "}}, "at least one name to a non-empty text"),
        ({"prompts": {"a": 3}}, "at least one name to a non-empty text"),
        ({"prompts": ["a"]}, "at least one name to a non-empty text"),
    ],
)
def test_a_wrong_set_is_explained(
    write_prompts: Write, changed: dict[str, object], message: str
) -> None:
    path = write_prompts({"a": "b"}, **changed)
    with pytest.raises(AgiqaError, match=message) as caught:
        read_prompt_set(path)
    assert path in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"name: a\n", "missing citation, order, template, pooling, prompts"),
        (b"- a\n", "expected the keys name, citation"),
        (b"", "expected the keys name, citation"),
        (b"name: [", "not a readable prompt set"),
        (b"name: \xff", "not a readable prompt set"),
    ],
)
def test_a_file_that_is_no_set(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "set.yaml"
    path.write_bytes(data)
    with pytest.raises(AgiqaError, match=message) as caught:
        read_prompt_set(str(path))
    assert "\n" not in str(caught.value)
