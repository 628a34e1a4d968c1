"""Vectors are those of the plain transformers forward; fingerprints hold what changes them."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic, Visual
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import decode
from agiqa.stage1.extract import extract
from agiqa.stage1.extractors import (
    DualEncoderExtractor,
    Extractor,
    ImageTextExtractor,
    Sample,
    VisionExtractor,
    semantic_extractor,
)
from agiqa.store import read_pack
from kit import families
from kit.changed_weights import change_weights


def _samples(extractor: Extractor, table: ImagesTable) -> list[Sample]:
    return [extractor.preprocess(decode(path)) for path in table.paths()[:4]]


def _vectors(extractor: Extractor, samples: Sequence[Sample], wanted: Sequence[int]) -> np.ndarray:
    return np.stack(extractor.extract(samples, wanted), axis=1)


def test_prompts_together_equal_each_alone(semantic: Semantic, table: ImagesTable) -> None:
    extractor = ImageTextExtractor(semantic)
    samples = _samples(extractor, table)
    both = extractor.extract(samples, [0, 1])
    for index in (0, 1):
        assert np.array_equal(both[index], extractor.extract(samples, [index])[0])


@pytest.mark.parametrize("kind", ["semantic", "visual"])
def test_a_row_is_the_same_to_the_bit_wherever_it_stands(
    kind: str, semantic: Semantic, visual: Visual, table: ImagesTable
) -> None:
    extractor = ImageTextExtractor(semantic) if kind == "semantic" else VisionExtractor(visual)
    samples = _samples(extractor, table)
    every = range(len(extractor.vectors))
    forward = _vectors(extractor, samples, every)
    backward = _vectors(extractor, samples[::-1], every)
    assert np.array_equal(forward, backward[::-1])


def _prints(settings: Semantic | Visual) -> list[object]:
    kind = ImageTextExtractor if isinstance(settings, Semantic) else VisionExtractor
    return [vector.fingerprint for vector in kind(settings).vectors]  # type: ignore[arg-type]


def test_fingerprints_change_with_what_changes_the_numbers(
    semantic: Semantic, tiny_lmm: Path, tmp_path: Path
) -> None:
    base = _prints(semantic)
    text = (Path(__file__).parents[2] / "prompts" / "ma_agiqa.yaml").read_text()

    def with_prompts(old: str, new: str) -> list[object]:
        assert old in text
        path = tmp_path / "set.yaml"
        path.write_text(text.replace(old, new))
        return _prints(dataclasses.replace(semantic, prompts=str(path)))

    reworded = with_prompts("violations of coherence", "violations of anatomy")
    assert reworded[0] == base[0]
    assert reworded[1] != base[1]
    assert with_prompts("USER:", "HUMAN:")[0] != base[0]
    assert with_prompts("name: ma_agiqa", "name: renamed") == base
    assert with_prompts("  coherence: >-", "  logic: >-") == base
    assert _prints(dataclasses.replace(semantic, dtype="bfloat16"))[0] != base[0]
    assert _prints(dataclasses.replace(semantic, attention="eager"))[0] != base[0]
    assert _prints(dataclasses.replace(semantic, precision="float32"))[0] != base[0]
    assert with_prompts("pooling: mean", "pooling: last")[0] != base[0]
    assert _prints(dataclasses.replace(semantic, batch_size=2, workers=1, name="x")) == base


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("preprocessor_config.json", {"image_mean": [0.5, 0.5, 0.4]}),
        ("preprocessor_config.json", {"resample": 2}),
        ("config.json", {"note": "any word counts, one that no model reads, too"}),
    ],
)
def test_files_of_the_model_are_in_the_fingerprint(
    semantic: Semantic, tiny_lmm: Path, tmp_path: Path, file: str, values: dict[str, object]
) -> None:
    model = Path(shutil.copytree(tiny_lmm, tmp_path / "model"))
    (model / file).write_text(json.dumps(json.loads((model / file).read_text()) | values))
    changed = _prints(dataclasses.replace(semantic, model=str(model)))
    assert all(new != old for new, old in zip(changed, _prints(semantic), strict=True))


def test_a_new_projector_leaves_the_visual_features_alone(
    semantic: Semantic, visual: Visual, tiny_lmm: Path, tmp_path: Path
) -> None:
    changed = Path(shutil.copytree(tiny_lmm, tmp_path / "changed"))
    options = {"model": str(changed)}
    change_weights(changed, lambda name: 1.5 if "multi_modal_projector" in name else 1.0)
    assert _prints(dataclasses.replace(visual, **options)) == _prints(visual)
    assert _prints(dataclasses.replace(semantic, **options)) != _prints(semantic)
    change_weights(changed, lambda name: 1.5 if "vision_tower" in name else 1.0)
    assert _prints(dataclasses.replace(visual, **options)) != _prints(visual)


def test_wrong_models_and_layers_are_explained(
    semantic: Semantic, visual: Visual, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AgiqaError, match=r"empty: not a transformers model folder"):
        ImageTextExtractor(dataclasses.replace(semantic, model=str(tmp_path / "empty")))
    with pytest.raises(AgiqaError, match="no such folder, and not a valid hub id"):
        ImageTextExtractor(dataclasses.replace(semantic, model="./not/there/at/all"))
    with pytest.raises(AgiqaError, match=r"blocks from 1 to 3 of 'tiny-lmm', found \[1, 9\]"):
        VisionExtractor(dataclasses.replace(visual, layers=(1, 9)))
    with pytest.raises(AgiqaError, match=r"some of cls, mean, std, found \['max'\]"):
        VisionExtractor(dataclasses.replace(visual, pool=("max",)))
    with pytest.raises(AgiqaError, match=r"closeup expects 0 or at least 32.*found 31"):
        VisionExtractor(dataclasses.replace(visual, closeup=31))
    levit = shutil.copytree(visual.model, tmp_path / "levit")
    (levit / "config.json").write_text('{"model_type": "levit"}')  # of blocks of several widths
    with pytest.raises(AgiqaError, match="Model 'levit' is a levit, not a vision transformer"):
        VisionExtractor(dataclasses.replace(visual, model=str(levit)))


def test_missing_weights_are_refused(
    semantic: Semantic, tiny_lmm: Path, tmp_path: Path, table: ImagesTable
) -> None:
    broken = Path(shutil.copytree(tiny_lmm, tmp_path / "broken"))
    change_weights(broken, lambda name: None if "linear_1.weight" in name else 1.0)
    extractor = ImageTextExtractor(dataclasses.replace(semantic, model=str(broken)))
    with pytest.raises(AgiqaError, match=r"lacks 1 weights.*linear_1\.weight"):
        extractor.extract(_samples(extractor, table), [0])


def test_patches_are_what_is_pooled(visual: Visual, photo: Image.Image) -> None:
    extractor = VisionExtractor(dataclasses.replace(visual, pool=("std", "mean")))
    sample = extractor.preprocess(photo)
    pooled = extractor.extract([sample], range(len(extractor.vectors)))
    patches = [layer for view in extractor.patches([sample]) for layer in view]
    assert [layer.shape[:2] for layer in patches] == [(1, 36), (1, 36), (1, 16), (1, 16)]
    for vector, layer in zip(pooled, patches, strict=True):
        expected = np.concatenate([layer[0].std(axis=0, ddof=1), layer[0].mean(axis=0)])
        np.testing.assert_allclose(vector[0], expected, atol=1e-5)
    assert [view.box for view in extractor.views] == [(0, 0, 1, 1), (0.25, 0.25, 0.75, 0.75)]


@pytest.mark.parametrize("family", ["clip", "siglip2", "siglip2_naflex"])
def test_vectors_and_similarities_are_the_models_own(
    family: str, tmp_path: Path, table: ImagesTable, write_prompts: Callable[..., str]
) -> None:
    folder = getattr(families, family)(tmp_path / family)
    texts = {"bad": "a bad, bad photo", "good": "a good photo"}
    settings = Semantic(
        name="dual",
        model=str(folder),
        prompts=write_prompts(texts),
        batch_size=4,
        precision="float32",
        workers=0,
    )
    extractor = semantic_extractor(settings)
    assert isinstance(extractor, DualEncoderExtractor)
    extract(table, extractor, tmp_path / "dual.zarr", ledger=tmp_path / "ledger", workers=0)
    store, beside = read_pack(tmp_path / "dual.zarr"), read_pack(tmp_path / "dual-answers.zarr")
    assert (store.names, beside.names) == (("image",), ("similarities",))
    assert beside.vectors.shape == (10, 1, 2)

    model = transformers.AutoModel.from_pretrained(folder).eval()
    images = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    words = transformers.AutoTokenizer.from_pretrained(folder)
    length = model.config.text_config.max_position_embeddings
    asked = words(
        list(texts.values()),
        padding="max_length",
        max_length=length,
        truncation=True,
        return_tensors="pt",
    )
    pixels = images([decode(path) for path in table.paths()], return_tensors="pt")
    with torch.inference_mode():
        whole = model(**asked, **pixels)
    rows = store.rows(list(table.frame["image_id"]))[:, 0]
    np.testing.assert_allclose(rows, whole.image_embeds.numpy(), atol=1e-5)
    cosines = whole.image_embeds @ whole.text_embeds.T
    similarities = beside.rows(list(table.frame["image_id"]))[:, 0]
    np.testing.assert_allclose(similarities, cosines.numpy(), atol=1e-5)


def test_a_dual_encoder_cannot_be_asked_for_the_images_prompt(
    tmp_path: Path, write_prompts: Callable[..., str]
) -> None:
    folder = families.clip(tmp_path / "clip")
    prompts = write_prompts({"match": 'Does it show "{image_prompt}"?'})
    with pytest.raises(AgiqaError, match=r"image_prompt.*use another set, or an image-text model"):
        semantic_extractor(Semantic(model=str(folder), prompts=prompts))


def test_a_model_that_takes_no_images_is_named(tmp_path: Path) -> None:
    transformers.LlamaConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(AgiqaError, match="is a llama, which takes no image and text: use an image"):
        semantic_extractor(Semantic(model=str(tmp_path)))
