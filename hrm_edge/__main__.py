"""``python -m hrm_edge`` is ``hrm-edge``."""

from __future__ import annotations

import sys

from hrm_edge.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
