"""What mPLUG-Owl2 is given: token ids with the image's place marked, and square pixels.

Both as its reference does it. Text is cut at the image marker, each side is tokenised on its own by
LLaMA's SentencePiece model, and BOS opens the first side alone. SentencePiece puts a space before
every text; transformers 5 leaves it out where a text begins with one, as ` ASSISTANT:` does, and
loses a token by it. So the tokenizer is built here from the model's file, as transformers 4 did.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers
from torch import Tensor

from agiqa.core.errors import AgiqaError
from agiqa.data.images import fit_for_square

IMAGE_MARKER = "<|image|>"
PADDING = (122, 116, 104)  # CLIP's mean colour
MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's, of pixels in 0…1
STD = (0.26862954, 0.26130258, 0.27577711)
ORDINARY = (1, 4, 6)  # SentencePiece's kinds of pieces that text may become: normal, user's, bytes


@dataclass(frozen=True)
class TokenizedText:
    """Token ids on both sides of the image; BOS is the first of `before`."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def tokenize(tokenizer: Tokenizer, bos: int, text: str) -> TokenizedText:
    """Cut `text` at its image marker and tokenise each side on its own.

    Raises:
        AgiqaError: the marker is not there exactly once.
    """
    sides = text.split(IMAGE_MARKER)
    if len(sides) != 2:
        raise AgiqaError(
            f"A text for mPLUG-Owl2 holds {IMAGE_MARKER} once, where the image goes; found it "
            f"{len(sides) - 1} times in {text[:80]!r}. Take it out of the prompt."
        )
    before, after = (tokenizer.encode(side, add_special_tokens=False).ids for side in sides)
    return TokenizedText((bos, *before), tuple(after))


def load_tokenizer(folder: Path, vocabulary: int) -> Tokenizer:
    """Load the folder's LLaMA tokenizer: `tokenizer.model`, or else `tokenizer.json`.

    Args:
        folder: of the model.
        vocabulary: how many tokens the model knows.

    Raises:
        AgiqaError: there is none, it cannot be read, is no LLaMA's or has too many tokens.
    """
    path = next(
        (folder / n for n in ("tokenizer.model", "tokenizer.json") if (folder / n).is_file()), None
    )
    if path is None:
        raise AgiqaError(
            f"{folder}: no tokenizer; expected tokenizer.model or tokenizer.json. Copy it there "
            "from the model's page."
        )
    try:
        tokenizer = (
            _from_pieces(path) if path.suffix == ".model" else Tokenizer.from_file(str(path))
        )
    except Exception as error:  # protobuf's and tokenizers' errors have no common class
        reason = " ".join(str(error).split())[:160]
        raise AgiqaError(f"{path}: not a readable tokenizer ({reason}); copy it again.") from error
    if not isinstance(tokenizer.model, models.BPE) or not tokenizer.model.byte_fallback:
        raise AgiqaError(f"{path}: expected a LLaMA tokenizer, BPE that falls back to bytes.")
    if tokenizer.get_vocab_size() > vocabulary:
        raise AgiqaError(
            f"{path}: {tokenizer.get_vocab_size()} tokens, but the model's vocab_size is "
            f"{vocabulary}. Take the tokenizer of the same model."
        )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.pre_tokenizer = None
    return tokenizer


def _from_pieces(path: Path) -> Tokenizer:
    """Make a tokenizer of a SentencePiece BPE model: its merges are its pieces by score."""
    from transformers.convert_slow_tokenizer import generate_merges, import_protobuf

    proto = import_protobuf().ModelProto()
    proto.ParseFromString(path.read_bytes())
    vocabulary = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    scores = {piece.piece: piece.score for piece in proto.pieces}
    never = [piece.piece for piece in proto.pieces if piece.type not in ORDINARY]
    return Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=generate_merges(vocabulary, scores, skip_tokens=never),
            unk_token=proto.trainer_spec.unk_piece,
            fuse_unk=True,
            byte_fallback=proto.trainer_spec.byte_fallback,
        )
    )


def square(image: Image.Image, size: int) -> np.ndarray:
    """Pad an RGB image to a centred square and resize it: uint8 `(3, size, size)`."""
    image = fit_for_square(image)
    side = max(image.size)
    padded = Image.new("RGB", (side, side), PADDING)
    padded.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    resized = padded.resize((size, size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


def normalise(pixels: Tensor) -> Tensor:
    """Normalise uint8 pixels `(B, 3, H, W)` to CLIP's range, float32."""

    def channels(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=pixels.device).view(3, 1, 1)

    return (pixels.float() / 255 - channels(MEAN)) / channels(STD)


def preprocessing(size: int) -> dict[str, object]:
    """Describe all that `square` and `normalise` do, for fingerprints."""
    return {
        "backend": "pil",
        "pad": list(PADDING),
        "size": size,
        "resample": "bicubic",
        "mean": list(MEAN),
        "std": list(STD),
    }
