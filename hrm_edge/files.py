"""Files that are either whole or absent: written under a temporary name, synced, then renamed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hrm_edge.errors import UserError

ABANDONED_S = 600.0  # a temporary file or folder that nobody has touched for so long


def os_error(error: OSError, path: Path | str) -> UserError:
    """The user's view of an ``OSError`` met while writing or reading ``path``."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    mends = {
        errno.ENOSPC: "free some space on that disk, or choose another folder",
        errno.EDQUOT: "your disk quota is used up: free some space, or choose another folder",
        errno.EACCES: "choose a folder you may write to, or change its permissions",
        errno.EPERM: "choose a folder you may write to, or change its permissions",
        errno.EROFS: "that file system is read-only: choose another folder",
        errno.ENOENT: "check the path",
        errno.ENOTDIR: "a file stands where a folder is needed: choose another path",
        errno.EISDIR: "a folder stands where a file is needed: choose another path",
    }
    return UserError(f"{path}: {reason}", mends.get(error.errno or 0, "check the path and the disk"))


def user_cache() -> Path:
    """``$XDG_CACHE_HOME/hrm-edge``, by default in ``~/.cache``: what can be made or fetched again (XDG directories)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hrm-edge"


def is_plain_name(name: str) -> bool:
    """Whether ``name``, which a file or a server gave, is one path component: joined to a folder it stays inside."""
    return name not in ("", ".", "..") and len(name) <= 255 and name.isprintable() and not set(name) & set("/\\")


def writable_cache(name: str) -> Path:
    """Return a folder for what this machine has compiled: ``name`` in the user's cache or, if that cannot be written,
    in a folder of this user for temporary files.
    """
    folder = user_cache() / name
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        folder = private_folder() / name
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def private_folder() -> Path:
    """Return a folder below /tmp that nobody else can write into, the same one for every process of this user."""
    folder = Path(tempfile.gettempdir()) / f"hrm-edge-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
        if stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and not about.st_mode & 0o077:
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="hrm-edge-"))  # somebody else has that name


@contextlib.contextmanager
def _renamed_into(path: Path, *, folder: bool) -> Iterator[Path]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{os.fsdecode(os.fsencode(path.name)[:100])}."  # a name may be as long as the file system allows
        if folder:
            temporary = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=path.parent))
        else:
            handle, name = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=path.parent)
            os.close(handle)
            temporary = Path(name)
        os.chmod(temporary, 0o755 if folder else 0o644)  # mkstemp's 0600 would hide results from other users
        _remove_abandoned(path.parent, prefix)
        lock = os.open(temporary, os.O_RDONLY)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise os_error(error, path) from error
    try:
        yield temporary
        for file in sorted(temporary.rglob("*")) if folder else [temporary]:
            if file.is_file():
                _sync(file)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        named = error.filename
        is_elsewhere = isinstance(named, (str, Path)) and not str(named).startswith(str(temporary))
        raise os_error(error, named if is_elsewhere else path) from error
    finally:
        os.close(lock)
        if folder:
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def _remove_abandoned(folder: Path, prefix: str) -> None:
    """Remove what killed processes left of the same target: old, and locked by nobody."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if not (entry.name.startswith(prefix) and entry.name.endswith(".tmp")):
                continue
            with contextlib.suppress(OSError):
                if time.time() - entry.stat(follow_symlinks=False).st_mtime < ABANDONED_S:
                    continue
                lock = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(entry.path) if entry.is_dir() else Path(entry.path).unlink()
                finally:
                    os.close(lock)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot sync a folder
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path; on a clean exit it becomes ``path``, else it is removed.

    A symbolic link stays one, and its target is replaced. A device or a pipe stays too, and is written to.
    """
    path = Path(path)
    if is_stream(path):
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / "content"
            temporary.touch()
            yield temporary
            try:
                with open(temporary, "rb") as content, open(path, "ab") as stream:
                    shutil.copyfileobj(content, stream)
            except OSError as error:
                raise os_error(error, path) from error
        return
    with _renamed_into(Path(os.path.realpath(path)), folder=False) as temporary:
        yield temporary


def is_stream(path: Path) -> bool:
    """Whether ``path`` is a device, a pipe, or what stands for an open file, such as /dev/stdout."""
    absolute = os.path.abspath(path)
    if absolute.startswith(("/dev/", "/proc/")) and not absolute.startswith("/dev/shm/"):
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes ``path`` (absent or an empty folder) on a clean exit.

    Raises ``UserError`` when ``path`` holds something already.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} already exists", "choose another --out, or remove it first")
    with _renamed_into(path, folder=True) as temporary:
        yield temporary


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` to ``path`` atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path`` atomically (NaN and infinity are refused)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read JSON; a missing or torn file is a ``UserError`` that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise os_error(error, path) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}", "it may be torn: write it again") from error


def read_yaml(path: Path | str, hint: str, called: str = "") -> Any:
    """Read YAML; a file that is missing or none is a ``UserError`` with this ``hint``.

    ``called``: what the error says in place of the path, such as ``--policy FILE``.
    """
    import yaml

    called = called or str(path)
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise os_error(error, path) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{called} is no text file", hint) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2020-13-45
        raise UserError(f"{called} is not valid YAML: {' '.join(str(error).split())}", hint) from error


def sha256(path: Path | str) -> str:
    """Hex SHA-256 of a file's bytes, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
