"""Train and measure nano's projector: towers frozen, captioning loss, whole prompts held out.

    python benchmarks/nano_projector.py train ~/data/agiqa-3k -o projector.safetensors
    python benchmarks/nano_projector.py measure ~/data/agiqa-3k

The one part of nano without published weights. It learns from AGIQA-3K's image and prompt pairs,
no scores: `USER: Describe the image.`, the visual tokens, `ASSISTANT:` and the prompt that the
image was generated from. It earns its place by the negative log-likelihood of held-out prompts
given their own image, against a blank image and against another prompt's image.
"""

import argparse
import logging
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.core.json_text import json_text, write_json
from agiqa.core.params import Semantic
from agiqa.core.progress import track
from agiqa.data.datasets import OFFICIAL
from agiqa.data.datasets.official import prepare_download
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import decode
from agiqa.stage1.extractors.loading import (
    find_model,
    load_image_processor,
    load_model,
    preprocess,
)

log = logging.getLogger(__name__)

BEFORE, AFTER = "USER: Describe the image.\n", " ASSISTANT:"
SIDES = ("train", "val", "test")


@dataclass(frozen=True)
class Recipe:
    """How the projector is trained."""

    epochs: float = 1.75
    batch_size: int = 16
    lr: float = 2e-3  # AdamW, cosine to zero after the warm-up
    warmup_steps: int = 20
    weight_decay: float = 0.01
    max_norm: float = 1.0  # gradient clipping
    held_out: float = 0.1  # share of the prompts for validation, and again for test
    validations: int = 4  # the best of these, by validation NLL, is kept
    seed: int = 0


@dataclass(frozen=True)
class Captions:
    """Image and caption pairs with the visual states of the frozen tower."""

    visual: np.ndarray  # (N, T, C) float16: patches of the feature layer, no class token
    tokens: list[list[int]]  # caption and end of turn
    groups: np.ndarray  # (N,) the caption each image belongs to
    sides: np.ndarray  # (N,) train, val or test, by caption


@dataclass(frozen=True)
class LMM:
    """An image-text model with its tokenizer and image processor."""

    model: Any
    tokenizer: Any
    image_processor: Any

    def embed(self, before: str, visual: Any, after: str) -> Any:
        """Embed text, image, text for input `(B, L, D)`; each side is tokenised on its own."""
        return self._join(self._ids(before, start=True), visual, self._ids(after, start=False))

    def hidden_states(self, embeddings: Any) -> Any:
        """Compute the last hidden state after the final norm, `(B, L, D)`; no head."""
        language = self.model.model.language_model
        return language(inputs_embeds=embeddings, use_cache=False).last_hidden_state

    def tower_states(self, pixels: Any) -> Any:
        """Run pixels `(B, 3, S, S)` to patches of the tower's feature layer `(B, T, C)`."""
        model = self.model.model
        hidden = model.vision_tower(pixel_values=pixels, output_hidden_states=True).hidden_states
        return hidden[model.config.vision_feature_layer][:, 1:]  # but the class token

    def _ids(self, text: str, start: bool) -> Any:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        opening = self.tokenizer("")["input_ids"][:1] if start else []  # where texts start with BOS
        return (opening if opening == [self.tokenizer.bos_token_id] else []) + ids

    def _join(self, before: list[int], visual: Any, after: list[int]) -> Any:
        import torch

        table = self.model.get_input_embeddings()
        batch = visual.shape[0]
        sides = [
            table(torch.tensor(ids, dtype=torch.long, device=visual.device)).expand(batch, -1, -1)
            for ids in (before, after)
        ]
        return torch.cat([sides[0], visual.to(sides[0].dtype), sides[1]], dim=1)


def load_lmm(settings: Semantic) -> LMM:
    """Load the model that `settings.model` names."""
    import transformers

    folder = find_model(settings.model)
    auto = transformers.AutoModelForImageTextToText
    model = load_model(auto, folder, settings.dtype, settings.attention)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder.path)
    return LMM(model, tokenizer, load_image_processor(folder))


def train_projector(table: ImagesTable, recipe: Recipe, out: Path) -> dict[str, Any]:
    """Train on `table`, measure on the held-out prompts, write `out` and its record."""
    lmm = load_lmm(Semantic())
    captions = collect(lmm, table, recipe)
    record = train(lmm, captions, recipe)
    save_projector(lmm, out, record)  # before the measurement, which takes minutes
    record["nll"] = measure(lmm, captions, blank_states(lmm))
    save_projector(lmm, out, record)
    return record


def measure_projector(table: ImagesTable, recipe: Recipe) -> dict[str, Any]:
    """Measure nano's projector on the prompts that the recipe's seed holds out."""
    lmm = load_lmm(Semantic())
    return measure(lmm, collect(lmm, table, recipe), blank_states(lmm))


def visual_states(lmm: LMM, table: ImagesTable, batch_size: int = 16) -> np.ndarray:
    """Run the tower to patches of its feature layer for every image: `(N, T, C)` float16."""
    import torch

    paths = table.paths()
    out = []
    for start in track(range(0, len(paths), batch_size), "Vision tower", unit=batch_size):
        batch = [preprocess(lmm.image_processor, decode(p)) for p in paths[start:][:batch_size]]
        with torch.inference_mode():
            pixels = torch.from_numpy(np.stack(batch)).to(lmm.model.device)
            out.append(lmm.tower_states(pixels).half().cpu().numpy())
    return np.concatenate(out)


def collect(lmm: LMM, table: ImagesTable, recipe: Recipe) -> Captions:
    """Collect captions of a table with prompts, split by prompt.

    Raises:
        AgiqaError: images without a prompt, or too few prompts to hold some out.
    """
    prompts = table.frame["prompt"].fillna("").astype(str)
    if not prompts.str.strip().all():
        raise AgiqaError(f"Data set '{table.name}' has images without a prompt; captions need one.")
    groups = table.frame["group"].to_numpy()
    order = np.random.default_rng(recipe.seed).permutation(np.unique(groups))
    held = round(len(order) * recipe.held_out)
    if held < 2 or len(order) <= 2 * held:
        raise AgiqaError(
            f"Data set '{table.name}' has {len(order)} prompts: too few to hold "
            f"{recipe.held_out:g} of them out for validation and again for test, at least 2 each."
        )
    side = dict.fromkeys(order, "train")
    side |= dict.fromkeys(order[:held], "test") | dict.fromkeys(order[held : 2 * held], "val")
    end = lmm.tokenizer.eos_token_id
    tokens = [
        [*lmm.tokenizer(f" {text.strip()}", add_special_tokens=False)["input_ids"], end]
        for text in prompts
    ]
    sides = np.array([side[group] for group in groups])
    return Captions(visual_states(lmm, table), tokens, groups, sides)


def train(lmm: LMM, captions: Captions, recipe: Recipe) -> dict[str, Any]:
    """Train the projector in place; it ends with the weights of the best validation.

    Returns:
        NLL in nats a token, measured by `measure`, and the learning curve.
    """
    import torch

    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    projector = lmm.model.model.multi_modal_projector
    projector.requires_grad_(True)
    _initialise(lmm, projector, captions)
    rows = np.flatnonzero(captions.sides == "train")
    steps = int(recipe.epochs * len(rows) / recipe.batch_size)
    order = np.concatenate([rng.permutation(rows) for _ in range(math.ceil(recipe.epochs) + 1)])
    optimiser = torch.optim.AdamW(
        projector.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay
    )
    checks = {round(steps * (k + 1) / recipe.validations) for k in range(recipe.validations)}
    curve: list[dict[str, float]] = []
    best: tuple[float, dict[str, Any]] | None = None
    running: list[float] = []
    for step in track(range(1, steps + 1), "Projector", unit=recipe.batch_size):
        batch = order[(step - 1) * recipe.batch_size : step * recipe.batch_size]
        for group in optimiser.param_groups:
            rise = min(1.0, step / recipe.warmup_steps)
            group["lr"] = recipe.lr * rise * 0.5 * (1 + math.cos(math.pi * step / steps))
        total, count = _nll(lmm, captions, batch, captions.visual[batch])
        loss = total.sum() / count.sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(projector.parameters(), recipe.max_norm)
        optimiser.step()
        running.append(float(loss.detach()))
        if step in checks:
            value = _mean_nll(lmm, captions, "val", captions.visual)
            curve.append({"step": step, "train": float(np.mean(running)), "val": value})
            log.info("step %d of %d: train %.3f, val %.3f", step, steps, curve[-1]["train"], value)
            running = []
            if best is None or value < best[0]:
                weights = {name: w.detach().clone() for name, w in projector.state_dict().items()}
                best = (value, weights)
    if best is None:
        raise AgiqaError("The recipe has no step: raise epochs or lower batch_size.")
    projector.load_state_dict(best[1])
    projector.requires_grad_(False)
    return {"recipe": asdict(recipe), "curve": curve}


def measure(lmm: LMM, captions: Captions, blank: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Measure the NLL of each side's captions, nats a token: own image, blank, another's.

    Args:
        lmm: the model with its projector.
        captions: the images and captions.
        blank: visual states of a blank image, `(T, C)`.
        seed: draws the other image, always of another prompt on the same side.
    """
    rng = np.random.default_rng(seed)
    result: dict[str, Any] = {}
    for side in SIDES[1:]:
        rows = np.flatnonzero(captions.sides == side)
        other_rows = np.arange(len(captions.sides))
        for row in rows:
            other_rows[row] = rng.choice(rows[captions.groups[rows] != captions.groups[row]])
        own_nll, counts = _row_nll(lmm, captions, side, captions.visual)
        other_nll, _ = _row_nll(lmm, captions, side, captions.visual[other_rows])
        blank_nll, _ = _row_nll(lmm, captions, side, np.broadcast_to(blank, captions.visual.shape))
        result[side] = {
            "prompts": len(np.unique(captions.groups[rows])),
            "images": len(rows),
            "tokens": int(counts.sum()),
            "own_image": float(own_nll.sum() / counts.sum()),
            "blank_image": float(blank_nll.sum() / counts.sum()),
            "other_image": float(other_nll.sum() / counts.sum()),
            "own_beats_other": float(np.mean(own_nll < other_nll)),
            "own_beats_blank": float(np.mean(own_nll < blank_nll)),
        }
    return result


def save_projector(lmm: LMM, out: Path, record: dict[str, Any]) -> None:
    """Write the projector (float16) to `out` and its record beside it as JSON."""
    import torch
    from safetensors.torch import save_file

    state = lmm.model.model.multi_modal_projector.state_dict()
    save_file({name: weight.to(torch.float16).contiguous() for name, weight in state.items()}, out)
    write_json(out.with_suffix(".json"), record)


def blank_states(lmm: LMM) -> np.ndarray:
    """Run the tower on an image of nothing but CLIP's mean colour: `(T, C)` float16."""
    import torch

    size = lmm.model.config.vision_config.image_size
    with torch.inference_mode():
        pixels = torch.zeros(1, 3, size, size, device=lmm.model.device)
        states: np.ndarray = lmm.tower_states(pixels)[0].half().cpu().numpy()
    return states


def _initialise(lmm: LMM, projector: Any, captions: Captions) -> None:
    """Draw fresh weights, scaled so that visual tokens are as long as the words' embeddings."""
    import torch

    for module in projector.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.LayerNorm):
            module.reset_parameters()
    with torch.no_grad():
        sample = projector(torch.from_numpy(captions.visual[:64]).float())
        words = lmm.model.get_input_embeddings().weight.norm(dim=-1).mean()
        projector.linear_2.weight.mul_(words / sample.norm(dim=-1).mean())


def _nll(lmm: LMM, captions: Captions, rows: np.ndarray, visual: np.ndarray) -> tuple[Any, Any]:
    """Sum NLL and token counts `(B,)` of the rows' captions given `visual` `(B, T, C)`."""
    import torch

    model = lmm.model
    tokens = [captions.tokens[row] for row in rows]
    longest = max(map(len, tokens))
    ids = torch.full((len(tokens), longest), lmm.tokenizer.eos_token_id, device=model.device)
    counted = torch.zeros(ids.shape, dtype=torch.bool, device=model.device)
    for index, entry in enumerate(tokens):
        ids[index, : len(entry)] = torch.tensor(entry)
        counted[index, : len(entry)] = True
    states = torch.from_numpy(np.ascontiguousarray(visual)).to(model.device).float()
    visual_tokens = model.model.multi_modal_projector(states).flatten(1, -2)  # (B, T, D)
    prefix = lmm.embed(BEFORE, visual_tokens, AFTER)
    sequence = torch.cat([prefix, model.get_input_embeddings()(ids)], dim=1)
    hidden = lmm.hidden_states(sequence)[:, -longest - 1 : -1]
    losses = torch.nn.functional.cross_entropy(
        model.lm_head(hidden[counted]), ids[counted], reduction="none"
    )
    table = torch.zeros(ids.shape, device=model.device).masked_scatter(counted, losses)
    return table.sum(dim=1), counted.sum(dim=1)


def _batches(rows: np.ndarray, size: int = 32) -> Iterator[np.ndarray]:
    yield from (rows[start : start + size] for start in range(0, len(rows), size))


def _row_nll(
    lmm: LMM, captions: Captions, side: str, visual: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    import torch

    totals, counts = [], []
    with torch.inference_mode():
        for rows in _batches(np.flatnonzero(captions.sides == side)):
            total, count = _nll(lmm, captions, rows, visual[rows])
            totals.append(total.cpu().numpy())
            counts.append(count.cpu().numpy())
    return np.concatenate(totals), np.concatenate(counts)


def _mean_nll(lmm: LMM, captions: Captions, side: str, visual: np.ndarray) -> float:
    totals, counts = _row_nll(lmm, captions, side, visual)
    return float(totals.sum() / counts.sum())


def main() -> None:
    """Train, or measure what nano has now, and print the NLL."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["train", "measure"])
    parser.add_argument("folder", type=Path, help="AGIQA-3K: its images and prompts, no scores")
    parser.add_argument("-o", "--out", type=Path, default=Path("projector.safetensors"))
    parser.add_argument("--epochs", type=float, default=Recipe.epochs)
    parser.add_argument("--seed", type=int, default=0, help="of prompts held out and order")
    given = parser.parse_args()
    table = prepare_download(OFFICIAL["agiqa-3k"], given.folder)
    recipe = Recipe(epochs=given.epochs, seed=given.seed)
    if given.what == "train":
        nll = train_projector(table, recipe, given.out)["nll"]
    else:
        nll = measure_projector(table, recipe)
    print(json_text(nll))


if __name__ == "__main__":
    main()
