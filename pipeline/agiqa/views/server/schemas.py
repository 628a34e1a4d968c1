"""The API's answers, typed: what /docs shows and what `agiqa.views.server.api` promises.

Every number is finite: JSON has no other, and would say null.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

KINDS = "What to explain: maps, neighbours, reasons; none named: all."
Name = Annotated[str, Field(description="As the client called it; for display only.")]


class Kind(StrEnum):
    """What can be asked for beside a score."""

    MAPS = "maps"
    NEIGHBOURS = "neighbours"
    REASONS = "reasons"


class Scale(BaseModel):
    """Lowest and highest MOS in training: the ends of the scale."""

    low: FiniteFloat
    high: FiniteFloat


class ImageScore(BaseModel):
    """What the run says of one image."""

    index: int = Field(description="Its place in the request, from 0.")
    name: Name
    image_id: str = Field(description="sha256 of the file's bytes.")
    score: FiniteFloat = Field(description="On the scale of the training MOS; higher is better.")
    low: FiniteFloat | None = Field(
        description="Lower end of the interval that holds the MOS of 90 % of images such as "
        "those that the run learnt from; null where it held out too few."
    )
    high: FiniteFloat | None = Field(description="Its upper end.")
    disagreement: FiniteFloat = Field(description="Standard deviation over the run's splits.")
    gate: dict[str, FiniteFloat] = Field(description="Mean weight of each expert; their sum is 1.")
    targets: dict[str, FiniteFloat] = Field(
        default_factory=dict, description="Scores for the run's further targets, where it has any."
    )
    trained_on: bool = Field(
        description="Whether some split of the run has trained or validated on the image: its "
        "score is optimistic then."
    )
    held_out: FiniteFloat | None = Field(
        description="What the splits say that had it on their test side, mean; null where "
        "`agiqa evaluate` knows none."
    )
    cached: bool = Field(
        description="Whether no model had to look at it: this server had scored the same bytes "
        "before, or the ledger has their vectors."
    )


class RefusedFile(BaseModel):
    """A file that was not scored, and why, in plain words."""

    index: int = Field(description="Its place in the request, from 0.")
    name: Name
    reason: str


class Scores(BaseModel):
    """Scores of a request's images, in its order, and the files that were refused."""

    run: str
    target: str
    synthetic: bool = Field(
        description="True: the run learned the severity of a known degradation, nobody's opinion."
    )
    scale: Scale
    notes: list[str] = Field(description="What a reader of the scores has to know, in sentences.")
    scores: list[ImageScore]
    refused: list[RefusedFile]


class MapPicture(BaseModel):
    """Where in the image the score is pulled up and down."""

    png: str = Field(description="The image with the map over it and its legend, base64.")
    method: str = Field(description="How the map was made, in one sentence.")
    peak: FiniteFloat = Field(description="The largest pull of one place, either way, in MOS.")


class Reason(BaseModel):
    """A quality aspect in which the image differs from well-rated ones."""

    model_config = ConfigDict(from_attributes=True)

    aspect: str
    text: str
    answer: str = Field(description="What the LMM leans to, relative to well-rated images.")
    percentile: FiniteFloat = Field(description="0 to 100 among well-rated images; low is worse.")
    strength: FiniteFloat = Field(description="0 to 1, for sorting.")


class Neighbour(BaseModel):
    """A rated image of the run's data set that looks alike."""

    model_config = ConfigDict(from_attributes=True)

    path: str = Field(description="As in the data set's table.")
    mos: FiniteFloat
    score: FiniteFloat | None = Field(description="The run's own as a test image, where evaluated.")
    similarity: FiniteFloat = Field(description="Cosine, −1 to 1.")
    generator: str
    same_prompt: bool
    picture: str | None = Field(default=None, description="Where the server shows it.")


class Explanation(BaseModel):
    """What was asked for and could be given."""

    map: MapPicture | None = None
    reasons: list[Reason] = Field(default_factory=list, description="Most unusual first.")
    neighbours: list[Neighbour] = Field(default_factory=list, description="Most alike first.")
    unavailable: dict[str, str] = Field(
        default_factory=dict, description="For each kind that could not be given: why."
    )


class Interval(BaseModel):
    """A median over splits with its interval; null where there are too few images for one."""

    median: FiniteFloat | None
    low: FiniteFloat | None
    high: FiniteFloat | None


class Tested(BaseModel):
    """How the run did on test sides."""

    model: str
    splits: int
    srcc: Interval
    plcc: Interval
    level: FiniteFloat | None = Field(description="Of the intervals, such as 0.95.")
    gate: str = Field(description="What validation made of the gate, in a sentence, or empty.")


class Taken(BaseModel):
    """What one request may hold."""

    request_bytes: int
    files: int
    pixels: int
    seconds: FiniteFloat


class RunFacts(BaseModel):
    """What the scores come from."""

    run: str
    dataset: str
    target: str
    protocol: str
    preset: str
    synthetic: bool
    licence: str
    images: int
    experts: list[str]
    scale: Scale
    asks_image_prompt: bool = Field(description="Whether a generation prompt is needed.")
    tested: Tested | None = Field(description="None: not evaluated here.")
    published: bool = Field(description="Then its card, README.md in its folder, has its figures.")
    explanations: dict[str, str] = Field(description="For each kind: empty, or why not.")
    limits: Taken
    version: str


class Health(BaseModel):
    """Whether the server lives, and whether its models are loaded."""

    live: bool
    ready: bool
    waiting: int = Field(description="Images in the queue.")


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: str
