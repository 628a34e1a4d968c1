"""Text becomes the tokens that SentencePiece makes of it, image marker and BOS in their places."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from agiqa.core.errors import AgiqaError
from agiqa.stage1.mplug_owl2.processing import load_tokenizer, tokenize

SIZE = 199  # tokens that the tiny model knows
Vocabulary = dict[str, int]


def _pieces(vocabulary: Vocabulary, ids: tuple[int, ...]) -> list[str]:
    names = {number: piece for piece, number in vocabulary.items()}
    return [names[number] for number in ids]


def test_each_side_of_the_image_is_tokenised_on_its_own(tiny: Path, vocabulary: Vocabulary) -> None:
    text = tokenize(load_tokenizer(tiny, SIZE), 1, "USER: in\n<|image|> A:")
    expected = ["<s>", "▁", "U", "S", "E", "R", ":", "▁in", "<0x0A>"]
    assert _pieces(vocabulary, text.before) == expected
    # SentencePiece puts a space before every text, so before this one there are two, and no BOS
    assert _pieces(vocabulary, text.after) == ["▁▁", "A", ":"]


def test_nothing_on_one_side(tiny: Path) -> None:
    tokenizer = load_tokenizer(tiny, SIZE)
    assert tokenize(tokenizer, 1, "<|image|>A").before == (1,)
    assert tokenize(tokenizer, 1, "A<|image|>").after == ()


@pytest.mark.parametrize("question", ["no image", "<|image|> and <|image|>"])
def test_the_marker_stands_once(tiny: Path, question: str) -> None:
    with pytest.raises(AgiqaError, match=r"holds <\|image\|> once.*found it [02] times") as error:
        tokenize(load_tokenizer(tiny, SIZE), 1, question)
    assert "\n" not in str(error.value)


def sentencepiece(scores: dict[str, float], text: str) -> list[str]:
    """SentencePiece's BPE, plainly: join the best neighbours until none can be joined."""
    symbols = list("▁" + text.replace(" ", "▁"))
    while True:
        joined = [a + b for a, b in pairwise(symbols)]
        best = max(joined, key=lambda pair: scores.get(pair, -1e9), default="")
        if best not in scores:
            return symbols
        index = joined.index(best)
        symbols[index : index + 2] = [best]


PIECES = ["▁▁", "▁a", "ab", "▁ab", "ba", "bab", "▁▁▁▁", "aba"]
SCORES = {piece: -float(rank) for rank, piece in enumerate(PIECES)}


@pytest.fixture(scope="module")
def from_sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """The tokenizer of a `tokenizer.model`, built as SentencePiece stores one."""
    from transformers.convert_slow_tokenizer import import_protobuf

    proto = import_protobuf().ModelProto()
    kinds = {"<unk>": 2, "<s>": 3, "</s>": 3, "<0x0A>": 6}
    listed = [*kinds, *PIECES, "▁", "a", "b", "c"]
    for piece in listed:
        score = SCORES.get(piece, -100.0 if piece not in kinds else 0.0)
        proto.pieces.add(piece=piece, score=score, type=kinds.get(piece, 1))
    proto.trainer_spec.model_type = 2
    proto.trainer_spec.byte_fallback = True
    folder = tmp_path_factory.mktemp("sentencepiece")
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
    return load_tokenizer(folder, len(listed))


@given(st.text("ab c", min_size=1, max_size=24))
def test_a_sentencepiece_model_is_read_as_sentencepiece_does(
    from_sentencepiece: Tokenizer, text: str
) -> None:
    assert from_sentencepiece.encode(text).tokens == sentencepiece(SCORES, text)


def test_control_pieces_are_never_made_of_text(from_sentencepiece: Tokenizer) -> None:
    assert 1 not in from_sentencepiece.encode("<s>").ids
    assert from_sentencepiece.encode("a\na").tokens == ["▁a", "<0x0A>", "a"]


def test_bad_tokenizers(tmp_path: Path, save_tokenizer: Callable[..., None]) -> None:
    def refused(match: str) -> None:
        with pytest.raises(AgiqaError, match=match) as error:
            load_tokenizer(tmp_path, SIZE)
        assert "\n" not in str(error.value)

    refused(r"no tokenizer; expected tokenizer\.model or tokenizer\.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    refused(r"tokenizer\.json: not a readable tokenizer")
    (tmp_path / "tokenizer.model").write_bytes(b"version https://git-lfs")
    refused(r"tokenizer\.model: not a readable tokenizer")
    (tmp_path / "tokenizer.model").unlink()
    save_tokenizer(tmp_path, byte_fallback=False)
    refused("expected a LLaMA tokenizer")
    save_tokenizer(tmp_path)
    with pytest.raises(AgiqaError, match=r"103 tokens, but the model's vocab_size is 50"):
        load_tokenizer(tmp_path, 50)
