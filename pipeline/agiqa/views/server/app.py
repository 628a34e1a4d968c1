"""The web app of one run, with everything that stands before it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from agiqa import __version__
from agiqa.views.server import api, pages
from agiqa.views.server.guards import AsProblems, Drained, Measured, SafeHeaders, SameOrigin
from agiqa.views.server.service import Service
from agiqa.views.server.under_way import Bounded, UnderWay, problem


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
        middleware=[
            Middleware(SafeHeaders),
            Middleware(Measured, meters=service.meters),
            Middleware(Drained),
            Middleware(AsProblems, limits=limits),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
            Middleware(SameOrigin),
            Middleware(Bounded, limits=limits, under_way=under_way),
        ],
    )
    app.openapi_version = "3.0.3"  # the newest that the Swagger UI of the bundle shows
    app.state.service, app.state.under_way = service, under_way
    app.include_router(api.router, max_body_size=limits.request_bytes)
    app.include_router(pages.health_router)
    app.include_router(pages.router)
    for path, folder in pages.STATIC_FOLDERS.items():
        app.mount(path, StaticFiles(directory=folder))
    for kind in (HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _answer)
    return app


def _answer(_: Request, error: Exception) -> JSONResponse:
    """Answer a request that has failed, of a wrong one with the first thing that is wrong."""
    if isinstance(error, HTTPException):
        return problem(error.status_code, str(error.detail), error.headers)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if part != "body")
        return problem(400, f"{field or 'body'}: {first['msg']}")
    return problem(500, "An internal error, which the server's log has.")
