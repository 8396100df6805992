"""Hold a Jetson at one power mode and one speed while a block runs, then restore both, even if this process is killed.

A guardian (a small shell script run as root) stores the clocks and the power mode, sets the new ones, and waits for the
end of its input. Its input ends when the block ends or when this process dies, even by SIGKILL; then it restores them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence

from hrm_edge.device.clocks import power_mode as mode_now
from hrm_edge.device.clocks import power_modes
from hrm_edge.device.system import System
from hrm_edge.errors import UserError

# Arguments: id of the mode to set (or -), its name, id of the present mode, "lock" or "-". Prints "held" or the reason
# why not. The clocks are stored and restored in the present mode, so that the board ends as it began. Some modes need a
# reboot, for which nvpmodel asks on its input; it reads the end of file there and keeps the present mode.
_GUARDIAN = r"""
trap '' INT HUP TERM
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
folder=$(mktemp -d) || exit 1
restore() {
    [ "$1" = - ] || nvpmodel -m "$3" </dev/null >/dev/null 2>&1
    [ ! -e "$folder/clocks" ] || jetson_clocks --restore "$folder/clocks" </dev/null >/dev/null 2>&1
    rm -rf "$folder"
}
refuse() {
    why=$1
    shift
    restore "$@"
    echo "refused $why"
    exit 1
}
if command -v jetson_clocks >/dev/null; then
    jetson_clocks --store "$folder/clocks" </dev/null >/dev/null 2>&1 || refuse "clocks" "$@"
fi
if [ "$1" != - ]; then
    nvpmodel -m "$1" </dev/null >/dev/null 2>&1
    [ "$(nvpmodel -q 2>/dev/null | sed -n 's/^NV Power Mode: *//p')" = "$2" ] || refuse "mode" "$@"
fi
if [ "$4" = lock ]; then
    jetson_clocks </dev/null >/dev/null 2>&1 || refuse "lock" "$@"
fi
echo held
cat >/dev/null
restore "$@"
"""


@contextlib.contextmanager
def hold(
    *,
    lock_clocks: bool = False,
    power_mode: str | None = None,
    system: System | None = None,
    become_root: Sequence[str] | None = None,
) -> Iterator[None]:
    """Hold the board at ``power_mode`` (a name; None: as it is) and, with ``lock_clocks``, at its highest clocks.

    ``become_root`` is put before the guardian's command; None means no prefix for root, else sudo without a prompt.
    Raises ``UserError``, before anything has changed, where the board lacks the mode or the tool, sudo is refused, or
    the mode needs a reboot.
    """
    if not lock_clocks and power_mode is None:
        yield
        return
    system = system or System()
    before, number = _numbers(system, power_mode)
    if lock_clocks and shutil.which("jetson_clocks") is None:
        raise UserError("--lock-clocks: this machine has no jetson_clocks", "leave it out: it is for a Jetson")
    if become_root is None:
        become_root = () if os.geteuid() == 0 else ("sudo", "--non-interactive")
    command = [*become_root, "sh", "-c", _GUARDIAN, "hrm-edge-guardian", number, power_mode or "-", before]
    try:
        # Its own process group keeps Ctrl-C in the terminal from reaching it.
        guardian = subprocess.Popen(
            [*command, "lock" if lock_clocks else "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=os.setpgrp,
        )
    except OSError as error:
        raise _refused(f"{become_root[0] if become_root else 'sh'}: {error.strerror}", power_mode) from error
    with guardian:
        assert guardian.stdin is not None
        assert guardian.stdout is not None
        assert guardian.stderr is not None
        said = guardian.stdout.readline().strip()
        if said != "held":
            guardian.stdin.close()
            raise _refused(said or guardian.stderr.read().strip(), power_mode)
        try:
            yield
        finally:
            guardian.stdin.close()
            guardian.wait()


def _numbers(system: System, power_mode: str | None) -> tuple[str, str]:
    """Return the ids of the present and the requested power mode; ``-`` for both where none is requested."""
    if power_mode is None:
        return "-", "-"
    ids = {name: str(number) for number, name in power_modes(system).items()}
    if not ids:
        raise UserError("--power-mode: this machine has no nvpmodel modes", "leave it out: it is for a Jetson")
    if power_mode not in ids:
        raise UserError(f"--power-mode: this board has no mode '{power_mode}'", f"its own: {', '.join(ids)}")
    now = mode_now(system)
    if now is None or now not in ids:
        raise UserError("--power-mode: the mode now cannot be read, so it could not be restored", "sudo nvpmodel -q")
    return ids[now], ids[power_mode]


def _refused(said: str, power_mode: str | None) -> UserError:
    """Return the error for the guardian's answer ``said``."""
    if said == "refused mode":
        return UserError(
            f"--power-mode {power_mode}: the board does not switch to it without a reboot",
            f"sudo nvpmodel -m ID, let it reboot, then measure without --power-mode {power_mode}",
        )
    if said in ("refused clocks", "refused lock"):
        return UserError("jetson_clocks failed; the board is as it was", "sudo jetson_clocks --show")
    why = said.splitlines()[0] if said else "no word"
    return UserError(
        f"changing clocks and power mode needs root, and sudo was refused ({why})",
        "run 'sudo -v' in this terminal first, or run hrm-edge bench as root",
    )
