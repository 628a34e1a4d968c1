"""The page, Swagger's page about the API, health and metrics; all from this machine."""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse, PlainTextResponse, Response

from agiqa.views.server.api import operation_id, problems, service_of
from agiqa.views.server.schemas import Health

VIEWS = Path(str(files("agiqa.views")))
STATIC = VIEWS / "server/static"
STATIC_FOLDERS = {"/static": STATIC, "/kit/web": VIEWS / "kit/web"}  # scripts and styles
SWAGGER_FILES = ("swagger-ui.css", "swagger-ui-bundle.js")  # of the bundle, no other

router = APIRouter(include_in_schema=False)
health_router = APIRouter(
    tags=["operation"], responses=problems(400), generate_unique_id_function=operation_id
)


@router.get("/")
async def get_page() -> FileResponse:
    """The page that images are dropped on."""
    return FileResponse(STATIC / "index.html", media_type="text/html")


@router.get("/docs")
async def get_docs() -> FileResponse:
    """The API, to read and to try."""
    return FileResponse(STATIC / "docs.html", media_type="text/html")


@router.get("/docs/{name}")
async def get_docs_file(name: str) -> Response:
    """Give Swagger UI's own files."""
    from swagger_ui_bundle import swagger_ui_path

    if name not in SWAGGER_FILES:
        raise HTTPException(404)
    return FileResponse(Path(str(swagger_ui_path)) / name)


@router.get("/favicon.ico")
async def get_icon() -> FileResponse:
    """Answer with the page's icon."""
    return FileResponse(STATIC / "icon.svg", media_type="image/svg+xml")


@health_router.get("/health", summary="Whether the server lives")
async def get_health(request: Request) -> Health:
    """Whether the server lives and is ready; always 200 while it lives."""
    models = service_of(request).models
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
    service = service_of(request)
    service.meters.waiting.set(service.models.length)
    return Response(service.meters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
