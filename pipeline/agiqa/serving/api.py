"""The JSON API: scores, explanations, and what the run is."""

from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Body, File, Form, HTTPException, Request, UploadFile
from fastapi import Path as InPath
from fastapi.responses import Response

from agiqa.images import ImageError
from agiqa.serving.desk import Desk, Given
from agiqa.serving.explanations import Kind
from agiqa.serving.pictures import Pictures
from agiqa.serving.schemas import Explanation, Folder, FolderNumbers, Problem, RunFacts, Scores
from agiqa.serving.uploads import shown_name

router = APIRouter(
    prefix="/api/v1",
    responses={
        status: {"model": Problem, "description": what}
        for status, what in {
            400: "The request is not as described.",
            413: "The request is larger than the server takes.",
            503: "Too many wait; `Retry-After` says when to come again.",
            504: "Not answered in time.",
        }.items()
    },
)

Number = Annotated[int, InPath(ge=0, description="The image's place in its list, from 0.")]
Size = Literal["small", "large"]
KINDS = "What to explain: maps, neighbours, reasons; default all."


@router.get("/run")
async def get_run(request: Request) -> RunFacts:
    """What the run is: data set, target, protocol, test figures, scale, limits."""
    return _desk(request).facts


@router.post("/scores")
async def post_scores(
    request: Request,
    images: Annotated[list[UploadFile], File(description="Image files; one or many.")],
    image_prompts: Annotated[
        list[str] | None,
        Form(
            description="The text the images were generated from: one for all, or one for each. "
            "Needed where the run says `asks_image_prompt`."
        ),
    ] = None,
) -> Scores:
    """Score images. Files that cannot be used are in `refused`; the others are scored."""
    desk = _desk(request)
    prompts = desk.prompts(image_prompts or [], len(images))
    given = [
        Given(shown_name(image.filename), prompt, image.file)
        for image, prompt in zip(images, prompts, strict=True)
    ]
    return await desk.score(given, request.is_disconnected)


@router.post("/explanations")
async def post_explanations(
    request: Request,
    image: Annotated[UploadFile, File(description="One image file.")],
    image_prompt: Annotated[str, Form(description="The text it was generated from.")] = "",
    kinds: Annotated[list[Kind] | None, Form(description=KINDS)] = None,
) -> Explanation:
    """Explain one image: a map of what pulls its score, reasons, and rated images like it."""
    desk = _desk(request)
    (prompt,) = desk.prompts([image_prompt], 1)
    given = Given(shown_name(image.filename), prompt, image.file)
    return await desk.explain(given, kinds or list(Kind), request.is_disconnected)


@router.get("/folder")
async def get_folder(request: Request) -> Folder:
    """The images of the folder that the operator named, for `/folder/scores`."""
    desk = _desk(request)
    if desk.facts.folder is None:
        raise HTTPException(404, "The server was started without --images.")
    return Folder(name=desk.listed_name, images=desk.listed)


@router.post("/folder/scores")
async def post_folder_scores(request: Request, wanted: FolderNumbers) -> Scores:
    """Score images of the operator's folder, by number."""
    desk = _desk(request)
    if len(wanted.numbers) > desk.facts.limits.files:
        raise ValueError(f"Expected at most {desk.facts.limits.files} images in one request.")
    prompts = desk.prompts([wanted.image_prompt], len(wanted.numbers))
    given = [_listed(desk, n, p) for n, p in zip(wanted.numbers, prompts, strict=True)]
    return await desk.score(given, request.is_disconnected)


@router.post("/folder/{number}/explanations")
async def post_folder_explanations(
    request: Request,
    number: Number,
    kinds: Annotated[list[Kind] | None, Body(embed=True, description=KINDS)] = None,
    image_prompt: Annotated[str, Body(embed=True)] = "",
) -> Explanation:
    """Explain an image of the operator's folder."""
    desk = _desk(request)
    (prompt,) = desk.prompts([image_prompt], 1)
    given = _listed(desk, number, prompt)
    return await desk.explain(given, kinds or list(Kind), request.is_disconnected)


@router.get("/folder/{number}/picture", response_class=Response)
async def get_folder_picture(request: Request, number: Number, size: Size = "small") -> Response:
    """A JPEG of an image of the operator's folder."""
    return await _jpeg(_desk(request), _desk(request).pictures, number, size)


@router.get("/dataset/{number}/picture", response_class=Response)
async def get_dataset_picture(request: Request, number: Number, size: Size = "small") -> Response:
    """A JPEG of an image of the run's data set, as neighbours name it."""
    desk = _desk(request)
    return await _jpeg(desk, desk.explanations.pictures, number, size)


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


def _listed(desk: Desk, number: int, prompt: str) -> Given:
    if not 0 <= number < len(desk.listed):
        raise HTTPException(404, f"There is no image {number}: the folder has {len(desk.listed)}.")
    return Given(desk.listed[number], prompt, desk.pictures.paths[number])


async def _jpeg(desk: Desk, pictures: Pictures, number: int, size: Size) -> Response:
    try:
        async with desk.decoding:
            picture = await to_thread.run_sync(pictures.jpeg, number, size)
    except IndexError:
        raise HTTPException(404, f"There is no picture {number}.") from None
    except ImageError as error:
        raise HTTPException(404, f"The picture {error.reason}.") from None
    headers = {"cache-control": "private, max-age=600"}
    return Response(picture, media_type="image/jpeg", headers=headers)
