"""Limits of the page's connections, which hold before anybody has shown a token.

uvicorn waits for a request without end and accepts connections until the process has no file left for one, which it
then logs in a loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

MOST = 96  # connections at a time: every viewer's, and a few for files and photos
ASKING_S = 10.0  # until a connection has sent the head of a request
ANSWERING_S = 120.0  # until a request is answered, its upload included: 24 MiB at 0.2 MiB/s
_LOOK_S = 0.5

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as _Http
else:
    _Http = AutoHTTPProtocol


class LimitedHttp(_Http):
    """uvicorn's HTTP, which ends a connection that is one too many, or that holds a request up."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since, self._was_busy = self.loop.time(), False
        if len(self.connections) > MOST:
            transport.abort()
        else:
            self.loop.call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        """End the connection where its time is up; nothing where it has become a WebSocket or is gone."""
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        cycle: Any = self.cycle  # None before the first request
        now, is_busy = self.loop.time(), cycle is not None and not cycle.response_complete
        if is_busy != self._was_busy:
            self._since, self._was_busy = now, is_busy
        if now - self._since > (ANSWERING_S if is_busy else ASKING_S):
            self.transport.abort()
        else:
            self.loop.call_later(_LOOK_S, self._look)
