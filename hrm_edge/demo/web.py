"""The page's server: a WebSocket a viewer (picture and state out, a browser's camera in), photos, beliefs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from hrm_edge.demo.guard import Guard
from hrm_edge.demo.loop import Demo
from hrm_edge.demo.view import View
from hrm_edge.errors import UserError
from hrm_edge.vision.images import Image

_PAGE = Path(__file__).parent / "page"
FILES = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js", "/board.js": "board.js"}
PHOTO_BYTES = 24 << 20
FRAME_BYTES = 4 << 20
MAX_VIEWERS = 32
MAX_UPLOADS = 4  # photos that are being received: each may hold PHOTO_BYTES
_QUIET_S = 0.5  # a viewer hears of the state at least this often

Decode = Callable[[bytes], Image]
Power = Callable[[], dict[str, Any]]
"""``{"watts": float | None, "meter": what measures, or why nothing does}``"""


class _TooLarge(UserError):
    """An upload beyond the limit."""


class Web:
    """Routes of one :class:`Demo`. ``decode`` reads the bytes of a picture within the project's limits."""

    def __init__(self, demo: Demo, decode: Decode, model: dict[str, Any], power: Power) -> None:
        self.demo, self._decode, self._model, self._power = demo, decode, model, power
        self._viewers: set[WebSocket] = set()
        self._photo_guest = object()  # photos hold the mailbox under this name, whoever sent them
        self._uploads = 0
        self._decoding = asyncio.Semaphore(2)  # hostile pictures are slow: they may not take every thread

    def app(self, token: str | None) -> Starlette:
        """Build the ASGI application, every route behind a :class:`Guard` with ``token``."""
        routes: list[BaseRoute] = [Route(path, self._file(name)) for path, name in FILES.items()]
        routes += [
            Route("/state", self._state),
            Route("/beliefs/{number:int}", self._beliefs),
            Route("/snapshot.jpg", self._snapshot),
            Route("/photo", self._photo, methods=["POST"]),
            Route("/photo", self._no_photo, methods=["DELETE"]),
            WebSocketRoute("/live", self._live),
        ]
        return Starlette(routes=routes, middleware=[Middleware(Guard, token=token)])

    # -- the page -----------------------------------------------------------------------------------------------

    @staticmethod
    def _file(name: str) -> Callable[[Request], Any]:
        async def send(_: Request) -> Response:
            return FileResponse(_PAGE / name, headers={"Cache-Control": "no-cache"})

        return send

    async def _state(self, _: Request) -> Response:
        return JSONResponse(self.document(self.demo.view))

    async def _beliefs(self, request: Request) -> Response:
        """Return the thought's records from step ``from`` on: see :class:`hrm_edge.demo.thinker.Thought`."""
        thought = self.demo.view.thought
        if thought is None or thought.number != request.path_params["number"]:
            return JSONResponse({"what": "that thought is over"}, 404)
        task = self.demo.thinker.task
        size = 2 + task.side * task.seq_len
        first = request.query_params.get("from", "0")
        start = int(first) if first.isdecimal() and len(first) < 9 else 0
        return Response(bytes(thought.records[size * start :]), media_type="application/octet-stream")

    async def _snapshot(self, _: Request) -> Response:
        view = self.demo.view
        jpeg = await asyncio.to_thread(lambda: view.jpeg)
        if jpeg is None:
            return JSONResponse({"what": "there is no picture yet", "mend": "start a camera first"}, 404)
        name = time.strftime("sudoku-%Y%m%d-%H%M%S.jpg")
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
        return Response(jpeg, media_type="image/jpeg", headers=headers)

    # -- photos -------------------------------------------------------------------------------------------------

    async def _photo(self, request: Request) -> Response:
        """Take a photo as the request's body: it replaces the live picture until somebody goes back to that."""
        if self._uploads >= MAX_UPLOADS:
            told = {"what": f"{MAX_UPLOADS} photos are being sent already", "mend": "try again in a moment"}
            return JSONResponse(told, 503, {"Connection": "close"})
        self._uploads += 1
        try:
            image = await self.decoded(await _body(request, PHOTO_BYTES))
        except UserError as error:
            told = {"what": error.problem, "mend": error.hint}
            if isinstance(error, _TooLarge):
                return JSONResponse(told, 413, {"Connection": "close"})  # what is left of the body is not wanted
            return JSONResponse(told, 422)
        except ClientDisconnect:
            return Response(status_code=400)
        finally:
            self._uploads -= 1
        if not self.demo.mailbox.claim(self._photo_guest, image):
            return JSONResponse({"what": "another viewer's camera is on", "mend": "stop that one first"}, 409)
        return JSONResponse({"width": image.shape[1], "height": image.shape[0]})

    async def _no_photo(self, _: Request) -> Response:
        self.demo.mailbox.release(self._photo_guest)
        return Response(status_code=204)

    async def decoded(self, data: bytes) -> Image:
        """Decode a picture from the bytes that somebody sent; raises ``UserError``."""
        async with self._decoding:
            return await asyncio.to_thread(self._decode, data)

    def _guest(self) -> str | None:
        guest = self.demo.mailbox.guest
        return None if guest is None else "photo" if guest is self._photo_guest else "viewer"

    def claim(self, viewer: _Viewer) -> bool:
        """Let a viewer's camera bring the frames; a photo gives way, another viewer's camera does not."""
        self.demo.mailbox.release(self._photo_guest)
        return self.demo.mailbox.claim(viewer)

    # -- live ---------------------------------------------------------------------------------------------------

    async def _live(self, socket: WebSocket) -> None:
        await socket.accept()
        if len(self._viewers) >= MAX_VIEWERS:
            await socket.close(1013, f"{MAX_VIEWERS} viewers are the limit")
            return
        self._viewers.add(socket)
        viewer = _Viewer(socket, self)
        ended = self.demo.listen(viewer.wake)
        sender = asyncio.create_task(viewer.send())
        try:
            await viewer.receive()
        finally:
            ended()
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await sender
            self.demo.mailbox.release(viewer)
            self._viewers.discard(socket)

    def document(self, view: View) -> dict[str, Any]:
        """Return a view for the page; the answer is in it only where it was verified."""
        thought = view.thought
        about = answer = None
        if thought is not None:
            solution = thought.solution
            answer = None if thought.answer is None else self.demo.thinker.task.format(thought.answer)
            about = {
                "number": thought.number,
                "steps": thought.steps,
                "view": thought.view,
                "done": solution is not None,
                "verified": thought.answer is not None,
                "ms": None if solution is None else round(1e3 * solution.latency_s, 1),
            }
        return {
            "number": view.number,
            "state": view.state.kind,
            "text": view.state.text,
            "board": view.board,
            "answer": answer,
            "thought": about,
            "figures": view.figures,
            "power": self._power(),
            "guest": self._guest(),
            "viewers": len(self._viewers),
            "model": self._model,
        }


class _Viewer:
    """One WebSocket. A picture is sent only when the page has shown the last one, so a slow phone sees fewer, not
    older ones; the page's camera is asked for the next frame only when the last one was taken, likewise.
    """

    def __init__(self, socket: WebSocket, web: Web) -> None:
        self._socket, self._web = socket, web
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._ready = True

    def wake(self) -> None:
        """Announce a new view, from the demo's thread."""
        with contextlib.suppress(RuntimeError):  # the server has stopped meanwhile
            self._loop.call_soon_threadsafe(self._news.set)

    async def send(self) -> None:
        """Send views until cancelled, or until the viewer is gone."""
        shown = -1
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), _QUIET_S)
            self._news.clear()
            view = self._web.demo.view
            await self._socket.send_text(json.dumps(self._web.document(view)))
            if self._ready and view.number != shown:
                jpeg = await asyncio.to_thread(lambda view=view: view.jpeg)  # type: ignore[misc]
                if jpeg is not None:
                    self._ready, shown = False, view.number
                    await self._socket.send_bytes(jpeg)

    async def receive(self) -> None:
        """Receive frames until the viewer is gone."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            data, text = message.get("bytes"), message.get("text")
            if data is not None:
                await self._frame(data)
            elif text == "shown":
                self._ready = True
                self._news.set()
            elif text == "camera on":
                taken = self._web.claim(self)
                await self._say({"camera": "more"} if taken else {"camera": "off", "what": "another viewer has it"})
            elif text == "camera off":
                self._web.demo.mailbox.release(self)

    async def _frame(self, data: bytes) -> None:
        """Take a frame of the page's camera; another viewer's is not even decoded."""
        if self._web.demo.mailbox.guest is not self:
            await self._say({"camera": "off", "what": "another viewer has it"})
            return
        try:
            image = await self._web.decoded(data)
        except UserError as error:
            await self._say({"camera": "more", "what": error.problem})
            return
        if self._web.demo.mailbox.put(image, self):
            await self._say({"camera": "more"})
        else:
            await self._say({"camera": "off", "what": "somebody else took over"})

    async def _say(self, message: dict[str, str]) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # gone: `receive` hears of it next
            await self._socket.send_text(json.dumps(message))


async def _body(request: Request, limit: int) -> bytes:
    """Read the request's body; raises ``_TooLarge`` as soon as it is known to be larger than ``limit`` bytes."""
    too_large = _TooLarge(f"the file is too large: {limit >> 20} MiB are the limit", "send a smaller picture")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > limit:
        raise too_large
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > limit:
            raise too_large
    return bytes(data)
