"""Print the table of boards and cards: every archive of 'hrm-edge record' in a folder.

python scripts/boards_table.py benchmarks/results/boards
"""

from __future__ import annotations

import sys
from pathlib import Path

from hrm_edge.errors import UserError
from hrm_edge.record.archive import SUFFIX, Record, read_archive
from hrm_edge.record.table import boards_table


def records(folder: Path) -> tuple[list[Record], list[str]]:
    """Return the records in a folder, and why an archive in it is none."""
    found, refused = [], []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            found.append(read_archive(path))
        except UserError as error:
            refused.append(f"{error.problem}\n  {error.hint}")
    return found, refused


def main(arguments: list[str]) -> int:
    """Print the table; exit code 2 where an archive could not be read."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print(__doc__, file=sys.stderr)
        return 2
    found, refused = records(Path(arguments[0]))
    print(boards_table(found))
    for problem in refused:
        print(f"Left out: {problem}", file=sys.stderr)
    return 2 if refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
