from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agiqa.core.errors import AgiqaError
from agiqa.data.named_yaml import bundled_folder
from agiqa.data.prompts import PromptSet, read_prompt_set

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
    assert (chosen.order, chosen.poolings, chosen.answers) == ("text_first", ("mean",), ())
    assert not chosen.is_chat
    assert "arXiv:2404.17762" in chosen.citation


@pytest.mark.parametrize("name", sorted(p.stem for p in bundled_folder("prompts").glob("*.yaml")))
def test_every_bundled_set_is_valid_and_named_as_its_file(name: str) -> None:
    assert read_prompt_set(name).name == name


@given(st.text(min_size=1), st.text())
def test_any_question_reaches_the_model_unchanged(question: str, template_end: str) -> None:
    """Braces in a question are text, not places to fill in."""
    end = template_end.replace("{", "(")
    question = question.replace("{image_prompt}", "")
    texts = {"q": question}
    first = PromptSet("a", "", "text_first", "Q: {prompt}\n{image}" + end, ("mean",), texts)
    assert first.text("q", "a cat") == (f"Q: {question}\n", end)
    last = PromptSet("a", "", "image_first", "{image}{prompt}" + end, ("mean",), texts)
    assert last.text("q") == ("", question + end)


@given(st.text(min_size=1).filter(str.strip))
def test_the_images_own_prompt_stands_where_the_question_asks_for_it(image_prompt: str) -> None:
    """Whatever it holds, placeholders included: it is text."""
    chosen = PromptSet(
        "a", "", "image_first", "U: {image}\n{prompt} A:", ("last",), {"q": "Is it {image_prompt}?"}
    )
    assert chosen.asks_image_prompt("q")
    assert chosen.question("q", image_prompt) == f"Is it {image_prompt.strip()}?"
    assert chosen.text("q", image_prompt) == ("U: ", f"\nIs it {image_prompt.strip()}? A:")
    for nothing in (None, "", " "):
        with pytest.raises(
            AgiqaError, match=r"'q' of set 'a' holds \{image_prompt\}, but an image"
        ):
            chosen.question("q", nothing)


def test_what_comes_with_agiqa() -> None:
    paper = read_prompt_set("ma_agiqa")
    for order in ("image_first", "text_first"):
        chosen = read_prompt_set(f"ma_agiqa_{order}")
        assert (chosen.order, chosen.prompts) == (order, paper.prompts)
        assert chosen.poolings == ("mean", "text_mean", "image_mean", "last")
    assert read_prompt_set("ma_agiqa_text_first").template == paper.template  # the same vectors
    for name in ("aspects", "correspondence"):
        chosen = read_prompt_set(name)
        assert chosen.answers == ("bad", "poor", "fair", "good", "excellent")
        assert all(answer in chosen.template for answer in chosen.answers)
        asks = [chosen.asks_image_prompt(prompt) for prompt in chosen.prompts]
        assert asks == [name == "correspondence"] * len(asks)
    assert len(read_prompt_set("aspects").prompts) >= 8


def test_chat_and_several_poolings(write_prompts: Write) -> None:
    path = write_prompts(
        {"a": 'Is {"b": 1} in {image_prompt}?'},
        template="chat",
        order="image_first",
        pooling=["last", "mean"],
        answers=["yes", "no"],
    )
    chosen = read_prompt_set(path)
    assert chosen.is_chat
    assert (chosen.poolings, chosen.answers) == (("last", "mean"), ("yes", "no"))
    assert chosen.question("a", "x") == 'Is {"b": 1} in x?'


def test_a_prompt_named_twice_is_refused(tmp_path: Path, write_prompts: Write) -> None:
    path = Path(write_prompts({"quality": "How good is it?"}))
    text = path.read_text("utf-8").replace("prompts:\n", "prompts:\n  quality: Is it sharp?\n")
    path.write_text(text, "utf-8")
    with pytest.raises(AgiqaError, match=r"line 7: the key 'quality' stands twice, first in line "):
        read_prompt_set(str(path))
    path.write_text(text.replace("  quality: Is", "  1: Is").replace("  quality", "  '1'"), "utf-8")
    with pytest.raises(AgiqaError, match="prompt '1' stands twice"):
        read_prompt_set(str(path))


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
    with pytest.raises(
        AgiqaError, match=r"Unknown prompt set 'other'; known: .*ma_agiqa, .*mine[.,]"
    ):
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
        ({"template": "{image_prompt} {prompt} {image}"}, r"\{image_prompt\} stands in a prompt"),
        ({"template": "{system} {prompt} {image}"}, r"unknown placeholder \{system\} in the templ"),
        ({"template": "Chat"}, "exactly once, or be the word chat"),
        ({"template": "chat", "order": "up"}, "one of text_first, image_first; found 'up'"),
        ({"pooling": "max"}, "one of mean, text_mean, image_mean, last, or a list.*found 'max'"),
        ({"pooling": ["mean", "max"]}, "or a list of them; found 'max'"),
        ({"pooling": ["mean", "last", "mean"]}, "pooling 'mean' stands twice"),
        ({"pooling": []}, "pooling is an empty list"),
        ({"pooling": None}, "found None"),
        ({"prompts": {"a": "Is it {foo}?"}}, r"unknown placeholder \{foo\} in prompt 'a'"),
        ({"prompts": {"a": "Is it { image_prompt }?"}}, r"unknown placeholder \{ image_prompt \}"),
        ({"prompts": {"a": "See {image}?"}}, r"unknown placeholder \{image\} in prompt 'a'"),
        ({"prompts": {"a": "{image_prompt}{image_prompt}"}}, r"'a' holds \{image_prompt\} twice"),
        ({"prompts": {"a.last": "b"}}, r"prompt name 'a\.last': letters, digits"),
        ({"prompts": {"visual": "b"}}, "cannot be named 'visual'"),
        ({"answers": ["yes"]}, r"at least two words, or likelihood; found \['yes'\]"),
        ({"answers": "yes"}, "at least two words, or likelihood; found 'yes'"),
        ({"answers": [], "answers_over": "vocabulary"}, r"at least one word, or .*; found \[\]"),
        ({"answers": ["a", "b"], "answers_over": "all"}, "is words or vocabulary; found 'all'"),
        ({"answers_over": "words"}, "answers_over goes with answers that are words"),
        ({"answers": "likelihood"}, r"expects a reply that ends in \{image_prompt\}, found ''"),
        ({"reply": "It is {foo}"}, r"unknown placeholder \{foo\} in the reply"),
        ({"reply": 3}, "the text that the model's reply begins with; found 3"),
        (
            {"prompts": {"a": "Is it {image_prompt}?"}, "reply": "{image_prompt}"},
            r"prompt 'a' with the reply holds \{image_prompt\} twice",
        ),
        ({"answers": [True, False]}, "True is no text to YAML; put the word in quotes"),
        ({"answers": ["very good", "bad"]}, "single words; found 'very good'"),
        ({"answers": ["", "bad"]}, "single words; found ''"),
        ({"answers": [["good"], "bad"]}, r"single words; found \['good'\]"),
        ({"answers": ["good", "bad", "good"]}, "answer 'good' stands twice"),
        ({"answer": ["good", "bad"]}, "unknown key 'answer'; did you mean 'answers'"),
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
    assert "\n" not in str(caught.value)


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
