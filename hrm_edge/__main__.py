"""``hrm-edge``, and ``python -m hrm_edge``, which is the same."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; returns the exit code. Ctrl-C while its modules load ends it like any later one."""
    try:
        from hrm_edge.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        print("Interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
