"""Access to the page: this machine only, or whoever has the token; never another site's page."""

from __future__ import annotations

import secrets
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_COOKIE = "hrm_edge_token"
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # an address with the token in it goes nowhere
}


def is_loopback(host: str) -> bool:
    """Return whether ``host`` can only mean this machine: localhost, or an address of its loopback (127.0.0.2)."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name, such as 127.0.0.1.example.org
        return False


class Guard:
    """ASGI middleware around ``app``: refuses who has no access, and adds the security headers.

    ``token``: None where the server listens on loopback only.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((k.lower().encode(), v.encode()) for k, v in _HEADERS.items()),
                ]
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, secured)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, secured)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return why a request is refused (or where it is sent instead); None where it may pass."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._token is None and not is_loopback(_name(host)):  # a foreign name that resolves to this machine
            return PlainTextResponse("this page is for this machine only: open it as localhost\n", 403)
        origin = headers.get("origin")
        acts = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if acts and origin is not None and urlsplit(origin).netloc != host:
            return PlainTextResponse("requests of other sites are refused\n", 403)
        if self._token is None:
            return None
        query = parse_qs(scope["query_string"].decode("latin-1"))
        given = query.get("token", [""])[0]
        if self._fits(given):
            if scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == "/":
                answer = RedirectResponse("./", 303)  # the token leaves the address bar
                answer.set_cookie(_COOKIE, given, httponly=True, samesite="strict", secure=scope["scheme"] == "https")
                return answer
            return None
        if self._fits(_cookie(headers.get("cookie", ""))):
            return None
        return PlainTextResponse("open the address that hrm-edge printed: it ends in ?token=...\n", 401)

    def _fits(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), (self._token or "").encode())


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _cookie(header: str) -> str:
    try:
        cookie = SimpleCookie(header).get(_COOKIE)
    except CookieError:
        return ""
    return cookie.value if cookie is not None else ""
