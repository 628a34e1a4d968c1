"""The API's answers, typed: what /docs shows and what `agiqa.serving.api` promises."""

from pydantic import BaseModel, ConfigDict, Field


class Scale(BaseModel):
    """Lowest and highest MOS in training: the ends of the scale."""

    low: float
    high: float


class ImageScore(BaseModel):
    """What the run says of one image."""

    index: int = Field(description="Its place in the request, from 0.")
    name: str = Field(description="As the client called it; for display only.")
    image_id: str = Field(description="sha256 of the file's bytes.")
    score: float = Field(description="On the scale of the training MOS; higher is better.")
    spread: float = Field(description="Standard deviation over the run's splits.")
    gate: dict[str, float] = Field(description="Mean weight of each expert; they add up to 1.")
    targets: dict[str, float] = Field(
        default_factory=dict, description="Scores for the run's further targets, where it has any."
    )
    cached: bool = Field(description="Whether this server had scored the same bytes before.")


class RefusedFile(BaseModel):
    """A file that was not scored, and why, in plain words."""

    index: int = Field(description="Its place in the request, from 0.")
    name: str
    reason: str


class Scores(BaseModel):
    """Scores of a request's images, in its order, and the files that were refused."""

    run: str
    target: str
    synthetic: bool = Field(
        description="True: the run learned the severity of a known degradation, nobody's opinion."
    )
    scale: Scale
    scores: list[ImageScore]
    refused: list[RefusedFile]


class MapPicture(BaseModel):
    """Where in the image the score is pulled up and down."""

    png: str = Field(description="The image with the map over it and its legend, base64.")
    method: str = Field(description="How the map was made, in one sentence.")
    peak: float = Field(description="The largest pull of one place, either way, in MOS.")


class Reason(BaseModel):
    """A quality aspect in which the image differs from well-rated ones."""

    model_config = ConfigDict(from_attributes=True)

    aspect: str
    text: str
    answer: str = Field(description="What the LMM leans to, relative to well-rated images.")
    percentile: float = Field(description="0 to 100 among well-rated images; low is worse.")
    strength: float = Field(description="0 to 1, for sorting.")


class Neighbour(BaseModel):
    """A rated image of the run's data set that looks alike."""

    model_config = ConfigDict(from_attributes=True)

    path: str = Field(description="As in the data set's table.")
    mos: float
    score: float | None = Field(description="The run's own on the test side, where evaluated.")
    similarity: float = Field(description="Cosine, −1 to 1.")
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
    """A median over splits with its interval."""

    median: float
    low: float | None
    high: float | None


class Tested(BaseModel):
    """How the run did on test sides."""

    model: str
    splits: int
    srcc: Interval
    plcc: Interval
    level: float | None = Field(description="Of the intervals, such as 0.95.")


class Taken(BaseModel):
    """What one request may hold."""

    request_bytes: int
    files: int
    pixels: int
    seconds: float


class Folder(BaseModel):
    """The folder that the operator gave to `agiqa serve --images`."""

    name: str
    images: list[str] = Field(description="Relative paths; an image's number is its place here.")


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
    tested: Tested | None = Field(description="None: not evaluated yet.")
    explanations: dict[str, str] = Field(description="For each kind: empty, or why not.")
    folder: int | None = Field(description="Images in the operator's folder, where there is one.")
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


class FolderNumbers(BaseModel):
    """Images of the operator's folder, by their numbers."""

    numbers: list[int] = Field(min_length=1)
    image_prompt: str = Field(default="", description="The text they were generated from.")
