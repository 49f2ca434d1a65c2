"""The API's documentation at `/docs`: Swagger UI from an installed package, so that the page needs no other server.

FastAPI's own page loads its scripts from a public server. The package `fastapi-swagger` ships the files of Swagger UI.
"""

import base64
import hashlib
import html
from importlib import resources

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, HTMLResponse

ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
"""Files of the page and their media types."""
_START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#page", deepLinking: true});'
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script>{start}</script>
</body>
</html>
"""
_DIGEST = base64.b64encode(hashlib.sha256(_START.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; script-src 'self' 'sha256-{_DIGEST}'; "
    "style-src 'self'; img-src 'self' data:; font-src data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


def add_docs(app: FastAPI) -> None:
    """Add `/docs` and its files to an application that was made with `docs_url=None, redoc_url=None`."""
    page = _PAGE.format(title=html.escape(app.title), start=_START)

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(page, headers=HEADERS)

    @app.get("/docs/{name}", include_in_schema=False)
    def asset(name: str) -> Response:
        if name not in ASSETS:
            return Response("not found", status_code=404)
        path = resources.files("fastapi_swagger") / "resources" / name
        return FileResponse(str(path), media_type=ASSETS[name], headers={"X-Content-Type-Options": "nosniff"})
