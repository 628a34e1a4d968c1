"""CLIP and SigLIP: the image's vector, and its cosines with the prompts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import decode
from agiqa.stage1.extract import extract
from agiqa.stage1.extractors import DualEncoderExtractor, semantic_extractor
from agiqa.store import read_pack
from kit import families


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
