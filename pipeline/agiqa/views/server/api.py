"""The web app of one run: the JSON API, the page, Swagger's page about the API, health and metrics.

All comes from this machine; `guards` stand before it.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, File, Form, Request, UploadFile
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from prometheus_client import generate_latest
from starlette.datastructures import ImmutableMultiDict
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from agiqa import __version__
from agiqa.views.server import guards
from agiqa.views.server.decoding import RequestImage, shown_name
from agiqa.views.server.guards import UnderWay, problem
from agiqa.views.server.schemas import KINDS, Explanation, Health, Kind, Problem, RunFacts, Scores
from agiqa.views.server.service import Service

VIEWS = Path(str(files("agiqa.views")))
STATIC = VIEWS / "server/static"
STATIC_FOLDERS = {"/static": STATIC, "/kit/web": VIEWS / "kit/web"}  # scripts and styles
SWAGGER_FILES = ("swagger-ui.css", "swagger-ui-bundle.js")  # of the bundle, no other
PROBLEMS = {
    400: "The request is not as described, or its Host header is no name of this server.",
    403: "The request comes from a page of another origin.",
    404: "There is no such image.",
    408: "The body comes too slowly.",
    413: "The request is larger than the server takes.",
    415: "The body is of another media type.",
    500: "An internal error, which the server's log has.",
    503: "Too many wait, or the server stops; `Retry-After` says when to come again.",
    504: "Not answered in time.",
}
ANY = (400, 403, 500, 503, 504)  # that every route of the API may answer with
BODY = (408, 413, 415)  # and those that take a body
FORM_TYPE = "multipart/form-data"


def make_app(service: Service, hosts: Sequence[str], under_way: UnderWay) -> ASGIApp:
    """Make the app, with whose start and stop the service's thread starts and stops.

    It answers to `hosts` in the Host header, ["*"] for any.
    """
    limits = service.limits
    app = FastAPI(
        title="agiqa",
        version=__version__,
        summary=f"Quality scores for AI-generated images, by the run {service.facts.run}.",
        lifespan=_lifespan,
        docs_url=None,  # its page would load from a CDN
        redoc_url=None,
        form_limits={
            "max_files": limits.files,
            "max_fields": limits.files + 8,
            "max_part_size": limits.prompt_bytes,
        },
        middleware=[
            Middleware(guards.SafeAndMeasured, meters=service.meters),
            Middleware(guards.Drained),
            Middleware(guards.AsProblems, limits=limits),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
            Middleware(guards.SameOrigin),
            Middleware(guards.Bounded, limits=limits, under_way=under_way),
        ],
    )
    app.openapi_version = "3.0.3"  # the newest that the Swagger UI of the bundle shows
    app.state.service, app.state.under_way = service, under_way
    app.include_router(router, max_body_size=limits.request_bytes)
    app.include_router(health_router)
    app.include_router(pages)
    for path, folder in STATIC_FOLDERS.items():
        app.mount(path, StaticFiles(directory=folder))
    for kind in (HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _answer)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    await service.decoders.start()
    service.models.start()
    yield
    service.models.stop()
    await service.decoders.close()


def _answer(_: Request, error: Exception) -> JSONResponse:
    """Answer a request that has failed, of a wrong one with the first thing that is wrong."""
    if isinstance(error, HTTPException):
        return problem(error.status_code, str(error.detail), error.headers)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if part != "body")
        return problem(400, f"{field or 'body'}: {first['msg']}")
    return problem(500, "An internal error, which the server's log has.")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The failures of a route, for its description; "default" keeps FastAPI's 422 out of it."""
    descriptions: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem, "description": PROBLEMS[status]} for status in statuses
    }
    if 503 in descriptions:
        descriptions[503]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return {**descriptions, "default": {"model": Problem, "description": "Any other failure."}}


async def require_form(request: Request) -> None:
    """Refuse bodies of another media type; a dependency."""
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent != FORM_TYPE:
        raise HTTPException(415, f"Expected a body of type {FORM_TYPE}, found {sent or 'none'}.")


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
health_router = APIRouter(
    tags=["operation"], responses=problems(400), generate_unique_id_function=operation_id
)
pages = APIRouter(include_in_schema=False)
FORM: dict[str, Any] = {"dependencies": [Depends(require_form)], "responses": problems(*BODY)}


@router.get("/run", summary="What the scores come from", tags=["run"])
async def get_run(request: Request) -> RunFacts:
    """Data set, target, protocol, test figures, scale and limits of the run."""
    return _service(request).facts


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
    service = _service(request)
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
    service = _service(request)
    (prompt,) = service.prompts([image_prompt], 1)
    image_input = RequestImage(shown_name(image.filename), prompt, image.file)
    return await service.explain(image_input, kinds or list(Kind), request.is_disconnected)


@router.get(
    "/dataset/{number}/picture",
    summary="See an image of the run's data set",
    tags=["run"],
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, **problems(404)},
)
async def get_dataset_picture(
    request: Request,
    number: Annotated[int, InPath(ge=0, le=2**31, description="The image's place, from 0.")],
    size: Literal["small", "large"] = "small",
) -> Response:
    """A JPEG of at most 160 (`small`) or 1024 pixels a side; neighbours name its address."""
    require_once(request.query_params, "size")
    picture = await _service(request).dataset_pictures.jpeg(number, size)
    headers = {"cache-control": "private, max-age=600"}
    return Response(picture, media_type="image/jpeg", headers=headers)


@pages.get("/")
async def get_page() -> FileResponse:
    """The page that images are dropped on."""
    return FileResponse(STATIC / "index.html", media_type="text/html")


@pages.get("/docs")
async def get_docs() -> FileResponse:
    """The API, to read and to try."""
    return FileResponse(STATIC / "docs.html", media_type="text/html")


@pages.get("/docs/{name}")
async def get_docs_file(name: str) -> Response:
    """Give Swagger UI's own files."""
    from swagger_ui_bundle import swagger_ui_path

    if name not in SWAGGER_FILES:
        raise HTTPException(404)
    return FileResponse(Path(str(swagger_ui_path)) / name)


@pages.get("/favicon.ico")
async def get_icon() -> FileResponse:
    """Answer with the page's icon."""
    return FileResponse(STATIC / "icon.svg", media_type="image/svg+xml")


@health_router.get("/health", summary="Whether the server lives")
async def get_health(request: Request) -> Health:
    """Whether the server lives and is ready; always 200 while it lives."""
    models = _service(request).models
    ready = models.ready.is_set() and not request.app.state.under_way.stopping
    return Health(live=True, ready=ready, waiting=models.length)


@health_router.get(
    "/health/ready",
    summary="Whether the server is ready",
    responses={503: {"model": Health, "description": "Models are loading, or it is stopping."}},
)
async def get_ready(request: Request, response: Response) -> Health:
    """As `/health`; 503 until the models are loaded, and from the signal to stop on."""
    health = await get_health(request)
    response.status_code = 200 if health.ready else 503
    return health


@health_router.get("/metrics", summary="Figures for Prometheus", response_class=PlainTextResponse)
async def get_metrics(request: Request) -> Response:
    """Requests and seconds by route, images by outcome, batches, queue, memory."""
    service = _service(request)
    service.meters.waiting.set(service.models.length)
    text = generate_latest(service.meters.registry)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service
