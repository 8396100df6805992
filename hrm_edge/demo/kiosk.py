"""The page where people are: full-screen in a browser of this machine's display, and as a QR code for a phone."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from hrm_edge.child import end_process
from hrm_edge.errors import UserError

# A browser, and its words for: full-screen, with a profile of its own, and no questions at the start.
_CHROMIUM = ("--kiosk", "--no-first-run", "--noerrdialogs", "--disable-session-crashed-bubble", "--user-data-dir={}")
_BROWSERS = {
    "chromium": _CHROMIUM,
    "chromium-browser": _CHROMIUM,
    "google-chrome": _CHROMIUM,
    "firefox": ("--kiosk", "--no-remote", "--profile", "{}"),
}
END_S = 5.0


def find_browser(environ: Mapping[str, str] = os.environ) -> str:
    """Return the program; ``UserError`` where there is no display or no browser."""
    if not (environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")):
        raise UserError(
            "--kiosk: there is no display here (DISPLAY and WAYLAND_DISPLAY are not set)",
            "run it in the desktop's session; or leave --kiosk out, and open the page on another machine: "
            "--web 0.0.0.0:8000",
        )
    program = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if program is None:
        raise UserError(f"--kiosk: none of {', '.join(_BROWSERS)} is installed", "sudo apt-get install firefox")
    return program


def _profiles(program: str, snaps: Path = Path("/snap/bin")) -> Path | None:
    """Return the folder for a browser's profile; None for the system's temporary one.

    Ubuntu's browsers are snaps, which see another /tmp than ours and of the home only what is not hidden.
    """
    name = Path(program).name.removesuffix("-browser")
    if not (snaps / name).exists():
        return None
    folder = Path.home() / "snap" / name / "common"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Browser:
    """A browser that shows ``url`` full-screen until it is closed; ``on_end`` is called when it ends by itself."""

    def __init__(self, program: str, url: str, on_end: Callable[[], None]) -> None:
        # A profile of its own: the user's may be open already, and its last session is nobody's business here.
        self._profile = tempfile.TemporaryDirectory(
            prefix="hrm-edge-kiosk-", dir=_profiles(program), ignore_cleanup_errors=True
        )
        words = [word.format(self._profile.name) for word in _BROWSERS[Path(program).name]]
        try:
            self._process = subprocess.Popen(
                [program, *words, url], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            self._profile.cleanup()
            raise UserError(f"--kiosk: {program} does not start: {error.strerror}", "choose another browser") from error
        self._closing = False
        self._on_end = on_end
        self._watcher = threading.Thread(target=self._watch, name="browser", daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        self._process.wait()
        if not self._closing:
            self._on_end()

    def close(self) -> None:
        """End it, by force where it does not end itself."""
        self._closing = True
        end_process(self._process, END_S)
        self._watcher.join(END_S)
        self._profile.cleanup()


def qr_code(url: str) -> str | None:
    """Return ``url`` as a QR code of block characters, for a phone; None where the package segno is not installed."""
    try:
        import segno
    except ModuleNotFoundError:
        return None
    text = io.StringIO()
    segno.make(url, error="l", micro=False).terminal(out=text, compact=True, border=2)
    return text.getvalue()
