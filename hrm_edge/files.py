"""Files that are either complete or absent: written under a temporary name, synced, then renamed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hrm_edge.errors import UserError

# Limit of an input file: far above any model or data set, far below what a device or a sparse file may claim.
MOST_BYTES = 64 << 30
MOST_JSON_BYTES = 64 << 20  # a JSON value takes up to 20 times its file's size in memory
MOST_YAML_BYTES = 1 << 20  # recipes, protocols, policies: written by hand
MOST_YAML_VALUES = 100_000  # with every alias written out
REPORT_BYTES = 1 << 20  # more than any report has taken
ABANDONED_S = 600.0  # age at which an unchanged temporary file or folder counts as abandoned


def os_error(error: OSError, path: Path | str) -> UserError:
    """Return the user's error for an ``OSError`` in writing or reading ``path``."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    remedies = {
        errno.ENOSPC: "free some space on that disk, or choose another folder",
        errno.EDQUOT: "your disk quota is used up: free some space, or choose another folder",
        errno.EACCES: "choose a folder you may write to, or change its permissions",
        errno.EPERM: "choose a folder you may write to, or change its permissions",
        errno.EROFS: "that file system is read-only: choose another folder",
        errno.ENOENT: "check the path",
        errno.ENOTDIR: "a file stands where a folder is needed: choose another path",
        errno.EISDIR: "a folder stands where a file is needed: choose another path",
    }
    return UserError(f"{path}: {reason}", remedies.get(error.errno or 0, "check the path and the disk"))


def user_cache() -> Path:
    """Return ``$XDG_CACHE_HOME/hrm-edge``, by default in ``~/.cache``, for files that can be made or fetched again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hrm-edge"


def is_plain_name(name: str) -> bool:
    """Return whether ``name``, from a file or a server, is one path component, so that it stays inside a folder."""
    return name not in ("", ".", "..") and len(name) <= 255 and name.isprintable() and not set(name) & set("/\\")


def writable_cache(name: str) -> Path:
    """Return a folder for code compiled on this machine: ``name`` in the user's cache, else in a temporary folder."""
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
    return Path(tempfile.mkdtemp(prefix="hrm-edge-"))  # another user has that name


@contextlib.contextmanager
def _renamed_into(path: Path, *, folder: bool) -> Iterator[Path]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name alone may be as long as the file system allows.
        prefix = f".{os.fsdecode(os.fsencode(path.name)[:100])}."
        if folder:
            temporary = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=path.parent))
        else:
            handle, name = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=path.parent)
            os.close(handle)
            temporary = Path(name)
        os.chmod(temporary, 0o755 if folder else 0o644)  # mkstemp's 0600 would hide results from other users
        _remove_abandoned(path.parent, prefix)
        lock = os.open(temporary, os.O_RDONLY)
        with contextlib.suppress(OSError):  # some file systems have no locks
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
    """Remove the temporary files that killed processes left for this target: old, and locked by no process."""
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
        # Some file systems cannot sync a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path; on a clean exit it becomes ``path``, else it is removed.

    A symbolic link stays one, and its target is replaced. A device or a pipe stays too, and is written to. Raises
    ``UserError`` where that cannot be written.
    """
    path = Path(path)
    if _is_stream(path):
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


def _is_stream(path: Path) -> bool:
    """Return whether ``path`` is a device, a pipe, or an alias of an open file such as /dev/stdout."""
    absolute = os.path.abspath(path)
    if absolute.startswith(("/dev/", "/proc/")) and not absolute.startswith("/dev/shm/"):
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes ``path`` (absent or an empty folder) on a clean exit.

    Raises ``UserError`` if ``path`` is not empty.
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


def check_input(path: Path | str, most: int = MOST_BYTES, *, pipe: bool = False) -> None:
    """Raise ``UserError`` unless ``path`` is a regular file of at most ``most`` bytes, before it is read.

    A device never ends, a named pipe waits for a writer, and a sparse file or one of /proc may claim terabytes.
    ``pipe`` allows the shell's pipes (``/dev/stdin``, ``<(command)``), for a reader that takes them in pieces.
    """
    try:
        about = Path(path).stat()
    except OSError as error:
        raise os_error(error, path) from error
    except ValueError as error:
        raise UserError(f"{str(path)!r} is no path: {error}", "check the path") from error
    if stat.S_ISDIR(about.st_mode):
        raise os_error(IsADirectoryError(errno.EISDIR, ""), path)
    if stat.S_ISFIFO(about.st_mode) and pipe and str(path).startswith("/dev/"):
        return
    if not stat.S_ISREG(about.st_mode):
        kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(about.st_mode), "a device")
        raise UserError(f"{path} is {kind}, not a file", "save what it gives as a file, and name that")
    if about.st_size > most:
        raise _too_large(path, about.st_size, most)


def read_bytes(path: Path | str, most: int) -> bytes:
    """Read a whole input file of at most ``most`` bytes. Raises ``UserError`` as :func:`check_input` does."""
    check_input(path, most)
    try:
        with open(path, "rb") as stream:
            content = stream.read(most + 1)
    except OSError as error:
        raise os_error(error, path) from error
    # A file of /proc claims to be empty.
    if len(content) > most:
        raise _too_large(path, len(content), most)
    return content


def _too_large(path: Path | str, size: int, most: int) -> UserError:
    return UserError(f"{path} has {size:,} bytes or more, at most {most:,} are read", "check that it is the right file")


def read_json(path: Path | str, most: int = MOST_JSON_BYTES) -> Any:
    """Read JSON. Raises ``UserError`` naming the file if it is missing, malformed or larger than ``most`` bytes."""
    content = read_bytes(path, most)
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}", "it may be torn: write it again") from error


def read_yaml(path: Path | str, hint: str, called: str = "") -> Any:
    """Read YAML. Raises ``UserError`` with this ``hint`` if the file is missing, too large or malformed.

    ``called``: the file's name in the error in place of its path, such as ``--policy FILE``.
    """
    import yaml

    called = called or str(path)
    content = read_bytes(path, MOST_YAML_BYTES)
    try:
        loader = yaml.SafeLoader(content.decode("utf-8"))
        tree = loader.get_single_node()
        if tree is None:
            return None
        if _values(tree, {}) > MOST_YAML_VALUES:
            raise UserError(f"{called} has more than {MOST_YAML_VALUES:,} values or one that holds itself", hint)
        return loader.construct_document(tree)
    except UnicodeDecodeError as error:
        raise UserError(f"{called} is no text file", hint) from error
    # ValueError: a date such as 2020-13-45.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{called} is not valid YAML: {' '.join(str(error).split())}", hint) from error


def _values(node: Any, counted: dict[int, float]) -> float:
    """Count the values under a YAML node with every alias expanded, infinity for a loop: a few lines can make billions.

    ``counted`` maps the nodes' identities to their counts; it is infinity while a node is being counted.
    """
    if id(node) not in counted:
        counted[id(node)] = math.inf
        children = node.value if isinstance(node.value, list) else []
        pairs = (child if isinstance(child, tuple) else (child,) for child in children)
        counted[id(node)] = 1 + sum(_values(part, counted) for pair in pairs for part in pair)
    return counted[id(node)]


def sha256(path: Path | str) -> str:
    """Return the hex SHA-256 of a regular file's bytes, read in 1 MiB pieces."""
    check_input(path)
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def check_writable(flag: str, path: Path) -> Path:
    """Return ``path``, a file to be written later; its folder is made.

    Raises ``UserError`` that names ``flag`` where it cannot be written: a folder, a name that is too long, no rights,
    or less space than a report takes.
    """
    hint = f"choose another file with {flag}"
    try:
        if path.is_dir():
            raise UserError(f"{flag} {path}: it is a folder", hint)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _is_stream(path):  # a stream needs no file in that folder
            with tempfile.TemporaryFile(dir=Path(os.path.realpath(path)).parent) as probe:
                probe.write(bytes(REPORT_BYTES))
    except OSError as error:
        raise UserError(f"{flag} {os_error(error, path).problem}", hint) from error
    return path
