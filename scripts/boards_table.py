"""Print the table of boards and cards: every archive of 'hrm-edge record' in a folder.

python scripts/boards_table.py benchmarks/results/boards
"""

from __future__ import annotations

import sys
from pathlib import Path

from hrm_edge.record.archive import read_archives
from hrm_edge.record.table import boards_table


def main(arguments: list[str]) -> int:
    """Print the table; exit code 2 where an archive could not be read."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print(__doc__, file=sys.stderr)
        return 2
    found, refused = read_archives(Path(arguments[0]))
    print(boards_table(found))
    for error in refused:
        print(f"Left out: {error.problem}\n  {error.hint}", file=sys.stderr)
    return 2 if refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
