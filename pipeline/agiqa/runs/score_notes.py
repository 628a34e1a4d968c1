"""What a reader of scores has to know of them, in words: their scale, and how far to trust them.

Beneath the ranking on terminals and in pipes, in JSON, and on the gallery.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agiqa.runs.score import Score


def what(provenance: Mapping[str, Any]) -> str:
    """What a run's scores are: its target, or synthetic severity, which is nobody's opinion."""
    return "synthetic severity" if provenance["synthetic"] else str(provenance["target"])


def kind(provenance: Mapping[str, Any]) -> str:
    """What a run's scores are, and on which scale."""
    low, high = (f"{provenance['mos'][end]:.2f}" for end in ("low", "high"))
    return f"{what(provenance)} on the scale of {provenance['dataset']}, {low} to {high}"


def notes(scores: Iterable["Score"], provenance: Mapping[str, Any]) -> list[str]:
    """What a reader of the scores has to know, a line each; they are gone through once."""
    low, high = float(provenance["mos"]["low"]), float(provenance["mos"]["high"])
    count = outside = trained = held_out = 0
    for score in scores:
        count += 1
        outside += not low <= score.score <= high
        trained += score.trained_on
        held_out += score.trained_on and score.held_out is not None
    lines = [f"Scores: {kind(provenance)}."]
    if "scorer" in provenance:
        about = f"Model: {provenance['model']}; licence: {provenance['licence']}."
        lines.append(f"{provenance['citation']} {about}")
    if trained_on := provenance.get("model_trained_on"):
        lines.append(
            f"The model has been trained on {trained_on}: scores of such images are optimistic."
        )
    if outside:
        lines.append(
            f"{outside:,} of {count:,} scores lie outside {low:.2f} to {high:.2f}, the "
            f"{what(provenance)} in training: trust their order more than their values."
        )
    if trained:
        if held_out:
            instead = "held_out is what the splits say that had not seen them"
        elif "published" in provenance:
            instead = "they are in-sample and no evidence of how well it rates"
        else:
            instead = "agiqa evaluate gives what the splits say that had not seen them"
        lines.append(
            f"{trained:,} of {count:,} images were in the run's training: their scores "
            f"are optimistic; {instead}."
        )
    return lines
