"""The web app of one run, with everything that stands before it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from agiqa import __version__
from agiqa.views.server import api, pages
from agiqa.views.server.guards import AsProblems, Drained, Measured, SafeHeaders, SameOrigin
from agiqa.views.server.service import BadRequestError, ClientGoneError, Service
from agiqa.views.server.under_way import RETRY_SECONDS, Bounded, UnderWay
from agiqa.views.server.worker import QueueFullError

CLIENT_GONE = 499  # nginx's number for it; nobody reads it but the metrics
STATUSES = {
    HTTPException: 0,  # its own
    RequestValidationError: 400,
    BadRequestError: 400,
    QueueFullError: 503,
    ClientGoneError: CLIENT_GONE,
    Exception: 500,
}


def make_app(service: Service, hosts: Sequence[str], under_way: UnderWay) -> ASGIApp:
    """Make the app, with whose start and stop the service's thread starts and stops.

    It answers to `hosts` in the Host header, ["*"] for any.
    """
    limits = service.limits

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.decoders.start()
        service.models.start()
        yield
        service.models.stop()
        await service.decoders.close()

    app = FastAPI(
        title="agiqa",
        version=__version__,
        summary=f"Quality scores for AI-generated images, by the run {service.facts.run}.",
        lifespan=lifespan,
        docs_url=None,  # its page would load from a CDN
        redoc_url=None,
        form_limits={
            "max_files": limits.files,
            "max_fields": limits.files + 8,
            "max_part_size": limits.prompt_bytes,
        },
        middleware=_middleware(service, hosts, under_way),
    )
    app.openapi_version = "3.0.3"  # the newest that the Swagger UI of the bundle shows
    app.state.service, app.state.under_way = service, under_way
    app.include_router(api.router, max_body_size=limits.request_bytes)
    app.include_router(pages.health_router)
    app.include_router(pages.router)
    for path, folder in pages.STATIC_FOLDERS.items():
        app.mount(path, StaticFiles(directory=folder))
    for error, status in STATUSES.items():
        app.add_exception_handler(error, _answer(status))
    return app


def _middleware(service: Service, hosts: Sequence[str], under_way: UnderWay) -> list[Middleware]:
    return [
        Middleware(SafeHeaders),
        Middleware(Measured, meters=service.meters),
        Middleware(Drained),
        Middleware(AsProblems, limits=service.limits),
        Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
        Middleware(SameOrigin),
        Middleware(Bounded, limits=service.limits, under_way=under_way),
    ]


def _answer(status: int) -> Callable[[Request, Exception], Response]:
    """A handler that answers with a `Problem`."""

    def handler(_: Request, error: Exception) -> Response:
        headers: dict[str, str] = {}
        code, detail = status, str(error)
        if isinstance(error, HTTPException):
            code, detail = error.status_code, str(error.detail)
            headers.update(error.headers or {})
        elif isinstance(error, RequestValidationError):
            detail = _first(error.errors())
        elif code == 503:
            headers["retry-after"] = str(RETRY_SECONDS)
        elif code == 500:
            detail = "An internal error, which the server's log has."
        return JSONResponse({"detail": detail}, code, headers)

    return handler


def _first(errors: Sequence[Any]) -> str:
    """The first thing wrong with a request, in a line."""
    field = ".".join(str(part) for part in errors[0]["loc"] if part != "body")
    return f"{field or 'body'}: {errors[0]['msg']}"
