"""Access to the gallery, and what a browser may do with its answers.

The gallery signs each search, so no page of another site may make it search: Host is checked
against a list (DNS rebinding), Origin against Host (requests across sites), and any address but
loopback needs a token.
"""

import hmac
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

COOKIE: Final = "imagelane-gallery"
TOKEN_PARAMETER: Final = "token"  # noqa: S105 - a name, no secret
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def is_loopback(host: str) -> bool:
    """Return whether `host` is an address of this machine alone."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def guard(hosts: frozenset[str], token: str | None) -> Middleware:
    """Return the middleware that checks each request and sets the headers of each answer.

    `hosts` are the allowed names in Host, without a port; loopback's are always allowed.
    """

    @web.middleware
    async def checked(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = _login(request, token) or await _checked(request, handler, hosts, token)
        except web.HTTPException as refused:
            refused.headers.update(_HEADERS)
            raise
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    return checked


def stream_headers() -> dict[str, str]:
    """Return the headers for a handler that prepares its answer itself."""
    return dict(_HEADERS)


async def _checked(
    request: web.Request, handler: Handler, hosts: frozenset[str], token: str | None
) -> web.StreamResponse:
    name = _host_name(request.headers.get("Host", ""))
    if not (is_loopback(name) or name in hosts):
        raise web.HTTPForbidden(text=f"Host {name!r} is none of this gallery's; see GALLERY_HOSTS")
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("Host"):
        raise web.HTTPForbidden(text="a page of another site may not ask this one")
    if request.method == "POST" and origin is None:
        raise web.HTTPForbidden(text="Origin is missing")
    if token is not None and not _same(request.cookies.get(COOKIE, ""), token):
        raise web.HTTPUnauthorized(text="open the address with ?token=… that the gallery printed")
    return await handler(request)


def _login(request: web.Request, token: str | None) -> web.StreamResponse | None:
    """Turn a token in the address into a cookie: no history and no referrer keeps it then."""
    given = request.query.get(TOKEN_PARAMETER)
    if token is None or given is None or request.method != "GET" or not _same(given, token):
        return None
    response = web.Response(status=303, headers={"Location": "/"})
    response.set_cookie(COOKIE, token, httponly=True, samesite="Strict", path="/")
    return response


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
