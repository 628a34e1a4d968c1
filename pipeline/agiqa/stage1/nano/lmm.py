"""nano whole, to train its projector: text and visual tokens as input embeddings, hidden states."""

from dataclasses import dataclass
from typing import Any

from agiqa.core.params import Semantic
from agiqa.stage1.extractors.loading import find_model, load_image_processor, load_model


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
