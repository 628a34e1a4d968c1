"""The JSON API: scores, explanations, and what the run is."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, File, Form, HTTPException, Request, UploadFile
from fastapi import Path as InPath
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.datastructures import ImmutableMultiDict

from agiqa.core.errors import one_line
from agiqa.core.trees import parse_json
from agiqa.views.server.decoding import Pictures
from agiqa.views.server.limits import Limits
from agiqa.views.server.schemas import (
    KINDS,
    Explanation,
    Folder,
    FolderExplanation,
    FolderNumbers,
    Kind,
    Problem,
    RunFacts,
    Scores,
)
from agiqa.views.server.service import Service
from agiqa.views.server.uploads import RequestImage, shown_name

PROBLEMS = {
    400: "The request is not as described, or its Host header is no name of this server.",
    403: "The request comes from a page of another origin.",
    404: "There is no such image, or no folder of the operator's.",
    408: "The body comes too slowly.",
    413: "The request is larger than the server takes.",
    415: "The body is of another media type.",
    500: "An internal error, which the server's log has.",
    503: "Too many wait, or the server stops; `Retry-After` says when to come again.",
    504: "Not answered in time.",
}
ANY = (400, 403, 500, 503, 504)  # that every route of the API may answer with
BODY = (408, 413, 415)  # and those that take a body


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The failures of a route, for its description; "default" keeps FastAPI's 422 out of it."""
    descriptions: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem, "description": PROBLEMS[status]} for status in statuses
    }
    if 503 in descriptions:
        descriptions[503]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return {**descriptions, "default": {"model": Problem, "description": "Any other failure."}}


def media_type(wanted: str) -> Any:
    """A dependency that refuses bodies of another media type."""

    async def check(request: Request) -> None:
        sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if sent != wanted:
            raise HTTPException(415, f"Expected a body of type {wanted}, found {sent or 'none'}.")
        if wanted == "application/json":
            try:
                parse_json(await request.body())
            except ValueError as error:
                raise HTTPException(400, f"The body is no JSON: {one_line(error)}.") from None

    return Depends(check)


def require_once(fields: ImmutableMultiDict[str, Any], *names: str) -> None:
    """Refuse a query or a form that names a thing twice, of which one would be taken.

    Raises:
        HTTPException: 400, with the name.
    """
    for name in names:
        if len(fields.getlist(name)) > 1:
            raise HTTPException(400, f"Expected {name} once, found it twice.")


def operation_id(route: APIRoute) -> str:
    """Name a route for clients by its function: `score_images` is `scoreImages`."""
    first, *others = route.name.split("_")
    return first + "".join(map(str.capitalize, others))


router = APIRouter(
    prefix="/api/v1", responses=problems(*ANY), generate_unique_id_function=operation_id
)
FORM: dict[str, Any] = {
    "dependencies": [media_type("multipart/form-data")],
    "responses": problems(*BODY),
}
JSON: dict[str, Any] = {
    "dependencies": [media_type("application/json")],
    "responses": problems(404, *BODY),
    "max_body_size": Limits.json_bytes,
}
PICTURE: dict[str, Any] = {
    "response_class": Response,
    "responses": {200: {"content": {"image/jpeg": {}}}, **problems(404)},
}

Number = Annotated[int, InPath(ge=0, le=2**31, description="The image's place, from 0.")]
Size = Literal["small", "large"]


@router.get("/run", summary="What the scores come from", tags=["run"])
async def get_run(request: Request) -> RunFacts:
    """Data set, target, protocol, test figures, scale and limits of the run."""
    return service_of(request).facts


@router.post("/scores", summary="Score images", tags=["images"], **FORM)
async def score_images(
    request: Request,
    images: Annotated[list[UploadFile], File(description="Image files; one or many.")],
    image_prompts: Annotated[
        list[str] | None,
        Form(
            description="The text the images were generated from: one for all, or one for each; "
            "at most 4 KiB of UTF-8. Needed where the run says `asks_image_prompt`."
        ),
    ] = None,
) -> Scores:
    """Scores in the request's order; files that cannot be used are in `refused`, with why."""
    service = service_of(request)
    prompts = service.prompts(image_prompts or [], len(images))
    inputs = [
        RequestImage(shown_name(image.filename), prompt, image.file)
        for image, prompt in zip(images, prompts, strict=True)
    ]
    return await service.score(inputs, request.is_disconnected)


@router.post("/explanations", summary="Explain the score of an image", tags=["images"], **FORM)
async def explain_image(
    request: Request,
    image: Annotated[UploadFile, File(description="One image file.")],
    image_prompt: Annotated[
        str, Form(description="The text it was generated from, at most 4 KiB of UTF-8.")
    ] = "",
    kinds: Annotated[list[Kind] | None, Form(description=KINDS)] = None,
) -> Explanation:
    """A map of what pulls the score up and down, reasons, and rated images that look alike."""
    require_once(await request.form(), "image", "image_prompt")
    service = service_of(request)
    (prompt,) = service.prompts([image_prompt], 1)
    image_input = RequestImage(shown_name(image.filename), prompt, image.file)
    return await service.explain(image_input, kinds or list(Kind), request.is_disconnected)


@router.get(
    "/folder",
    summary="List the operator's folder",
    tags=["folder"],
    responses=problems(404),
)
async def get_folder(request: Request) -> Folder:
    """The images of the folder that the operator named; their places are their numbers."""
    service = service_of(request)
    if service.facts.folder is None:
        raise HTTPException(404, "The server was started without --images.")
    return Folder(name=service.listed_name, images=service.listed)


@router.post(
    "/folder/scores",
    summary="Score images of the operator's folder",
    tags=["folder"],
    **JSON,
)
async def score_folder_images(request: Request, wanted: FolderNumbers) -> Scores:
    """As for files, by number."""
    service = service_of(request)
    if len(wanted.numbers) > service.facts.limits.files:
        raise HTTPException(
            400,
            f"Expected at most {service.facts.limits.files} images in one request, found "
            f"{len(wanted.numbers)}.",
        )
    prompts = service.prompts([wanted.image_prompt], len(wanted.numbers))
    inputs = [_listed(service, n, p) for n, p in zip(wanted.numbers, prompts, strict=True)]
    return await service.score(inputs, request.is_disconnected)


@router.post(
    "/folder/{number}/explanations",
    summary="Explain the score of an image of the operator's folder",
    tags=["folder"],
    **JSON,
)
async def explain_folder_image(
    request: Request, number: Number, wanted: FolderExplanation
) -> Explanation:
    """As for a file, by number."""
    service = service_of(request)
    (prompt,) = service.prompts([wanted.image_prompt], 1)
    image_input = _listed(service, number, prompt)
    return await service.explain(image_input, wanted.kinds or list(Kind), request.is_disconnected)


@router.get(
    "/folder/{number}/picture",
    summary="See an image of the operator's folder",
    tags=["folder"],
    **PICTURE,
)
async def get_folder_picture(request: Request, number: Number, size: Size = "small") -> Response:
    """A JPEG of at most 160 (`small`) or 1024 pixels a side."""
    require_once(request.query_params, "size")
    return await _jpeg(service_of(request).pictures, number, size)


@router.get(
    "/dataset/{number}/picture",
    summary="See an image of the run's data set",
    tags=["run"],
    **PICTURE,
)
async def get_dataset_picture(request: Request, number: Number, size: Size = "small") -> Response:
    """A JPEG of at most 160 (`small`) or 1024 pixels a side; neighbours name its address."""
    require_once(request.query_params, "size")
    return await _jpeg(service_of(request).dataset_pictures, number, size)


def service_of(request: Request) -> Service:
    """Find what the server holds between requests."""
    service: Service = request.app.state.service
    return service


def _listed(service: Service, number: int, prompt: str) -> RequestImage:
    if not 0 <= number < len(service.listed):
        raise HTTPException(
            404, f"There is no image {number}: the folder has {len(service.listed)}."
        )
    return RequestImage(service.listed[number], prompt, service.pictures.paths[number])


async def _jpeg(pictures: Pictures, number: int, size: Size) -> Response:
    headers = {"cache-control": "private, max-age=600"}
    return Response(await pictures.jpeg(number, size), media_type="image/jpeg", headers=headers)
