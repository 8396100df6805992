"""From ``--web [HOST:]PORT`` to a running server, and to the end of it."""

from __future__ import annotations

import contextlib
import errno
import secrets
import socket
import ssl
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from hrm_edge.callbacks import OnMessage
from hrm_edge.demo.connections import LimitedHttp
from hrm_edge.demo.guard import is_loopback
from hrm_edge.demo.kiosk import Browser, find_browser, qr_code
from hrm_edge.demo.loop import Demo
from hrm_edge.demo.power import Gauge
from hrm_edge.demo.web import FRAME_BYTES, Web
from hrm_edge.device.system import System
from hrm_edge.errors import UserError
from hrm_edge.power import AUTO, open_meter
from hrm_edge.report.schema import ModelInfo
from hrm_edge.terminal import echo
from hrm_edge.vision.images import decode_upload

_FORM = "write a port (--web 8000: this machine only) or an address and a port (--web 0.0.0.0:8000: the network)"


@dataclass(frozen=True)
class Address:
    """Address to listen on."""

    host: str
    port: int

    @property
    def is_local(self) -> bool:
        """Only this machine can reach it."""
        return is_loopback(self.host)


def parse_address(text: str) -> Address:
    """Parse ``8000``, ``0.0.0.0:8000``, ``[::]:8000``; port 0 takes a free one. Raises ``UserError``."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if colon else "127.0.0.1"
    if not port.isdecimal() or int(port) > 65535 or not host:
        raise UserError(f"--web {text}: no address to listen at", _FORM)
    return Address(host, int(port))


def bind(address: Address) -> socket.socket:
    """Bind a listening socket; ``UserError`` where the address is taken, not ours, or not allowed."""
    try:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
    except socket.gaierror as error:
        raise UserError(f"--web: unknown host '{address.host}'", _FORM) from error
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen()
    except OSError as error:
        listener.close()
        remedies = {
            errno.EADDRINUSE: f"choose another port: --web {address.port + 1 if address.port < 65535 else 8000}",
            errno.EACCES: "ports below 1024 are for root: choose another, such as --web 8000",
            errno.EADDRNOTAVAIL: "that address is not one of this machine's: ip address shows them",
        }
        problem = f"--web: cannot listen at {address.host}, port {address.port}: {error.strerror}"
        raise UserError(problem, remedies.get(error.errno or 0, _FORM)) from error
    return listener


def own_address() -> str:
    """Return the address at which other machines reach this one: that of its default route, or its name without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of no machine (RFC 5737); nothing is sent, the route is looked up
        except OSError:
            return socket.gethostname()
        return str(probe.getsockname()[0])


def check_tls(certificate: Path, key: Path) -> None:
    """Raise ``UserError`` unless the pair serves for https, which phones want before they give a page their camera."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        hint = (
            "make a pair: openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj /CN=hrm-edge "
            "-keyout key.pem -out cert.pem"
        )
        raise UserError(f"--cert {certificate} --key {key}: {error.strerror or error}", hint) from error


class Server:
    """Listens from the start; :meth:`run` answers until Ctrl-C, :meth:`stop`, or a fault of the demo's loop."""

    def __init__(self, demo: Demo, web: Web, address: Address, tls: tuple[Path, Path] | None = None) -> None:
        if tls is not None:
            check_tls(*tls)
        self._demo, self._socket = demo, bind(address)
        self.token = None if address.is_local else secrets.token_urlsafe(16)
        self._scheme, self._host = "http" if tls is None else "https", address.host
        config = uvicorn.Config(
            web.app(self.token),
            http=LimitedHttp,
            log_level="error",  # a warning for every bad request would let anybody fill the log
            access_log=False,
            ws_max_size=FRAME_BYTES,
            ws_max_queue=1,
            ws_per_message_deflate=False,  # JPEG does not shrink further
            timeout_graceful_shutdown=1,
            server_header=False,
            ssl_certfile=None if tls is None else tls[0],
            ssl_keyfile=None if tls is None else tls[1],
            lifespan="off",
        )
        self._server = uvicorn.Server(config)
        self._stop = threading.Event()
        self._fault: BaseException | None = None

    @property
    def port(self) -> int:
        """The port it listens at."""
        return int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        """Address to open, with the token if one is needed."""
        host = self._host if self._host not in ("0.0.0.0", "::") else own_address()
        host = f"[{host}]" if ":" in host else host
        return f"{self._scheme}://{host}:{self.port}/" + (f"?token={self.token}" if self.token else "")

    def run(self) -> None:
        """Serve, with the demo's loop in a thread beside it."""
        thread = threading.Thread(target=self._run_demo, name="demo", daemon=True)
        thread.start()
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._stop.set()
            thread.join()
            self._socket.close()
        if self._fault is not None:
            raise self._fault

    def stop(self) -> None:
        """End :meth:`run`; from any thread."""
        self._server.should_exit = True

    def _run_demo(self) -> None:
        try:
            self._demo.run(self._stop)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of `run`
            self._fault = error
            self.stop()


class Page:
    """A page at ``address``, by https where ``tls`` has a certificate and its key; ``kiosk``: in a browser here too."""

    def __init__(self, address: str, tls: tuple[Path, Path] | None, *, kiosk: bool, on_message: OnMessage) -> None:
        self._address, self._tls = parse_address(address), tls
        self._browser = find_browser() if kiosk else None
        self._on_message = on_message

    def show(self, demo: Demo, about: ModelInfo, backend: str) -> None:
        """Serve ``demo`` until Ctrl-C or, in a kiosk, until its browser is closed."""
        gauge = Gauge(open_meter(AUTO, System(), on_cpu="cpu" in backend))
        model = {"name": about.name, "parameters": about.parameters, "backend": backend}
        server = Server(demo, Web(demo, decode_upload, model, gauge), self._address, self._tls)
        source = "the browser's camera" if demo.camera is None else demo.camera.source.name
        self._on_message(f"Source: {source}. Open {server.url}")
        if not self._address.is_local:
            _show_qr_code(server.url)
        self._on_message("Ctrl-C ends it.")
        with contextlib.ExitStack() as until_the_end:
            until_the_end.callback(gauge.close)
            if self._browser is not None:
                until_the_end.callback(Browser(self._browser, server.url, server.stop).close)
            server.run()


def _show_qr_code(url: str) -> None:
    """Print the address as a QR code where a phone can see it: on a terminal that has its characters."""
    encoding = (sys.stderr.encoding or "").lower().replace("-", "")
    code = qr_code(url) if sys.stderr.isatty() and encoding == "utf8" else None
    if code is not None:
        echo(code, err=True, nl=False)
