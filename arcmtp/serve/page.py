"""The page at `/`: a chat in the browser, built from the sources in `page/`."""

from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from arcmtp.runtime.paths import data_dir

# Whatever a model writes, the page runs no script but its own and reaches no other address.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'",
        "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)  # fmt: skip
_HEADERS = {
    "Cache-Control": "no-cache",  # ask each time; the ETag makes that cheap
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def is_page(path: str) -> bool:
    """Whether a request's path is one of the page's files, which need no key: the page asks for it."""
    return path == "/" or path.startswith("/page/")


def add_page(app: FastAPI) -> None:
    """Add the routes `/` and `/page/NAME`, for GET and HEAD."""
    files = _Files(directory=data_dir() / "page")

    async def page(request: Request) -> Response:
        return await files.get_response(request.path_params.get("name", "index.html"), request.scope)

    for path in ("/", "/page/{name}"):
        app.add_api_route(path, page, methods=["GET", "HEAD"], include_in_schema=False)


class _Files(StaticFiles):
    def file_response(self, *arguments: Any, **options: Any) -> Response:
        response = super().file_response(*arguments, **options)
        response.headers.update(_HEADERS)
        return response
