"""The numbers that a run logs: files with a JSON object in each line."""

import json
import operator
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from eva_data.files import require_regular_file, write_text

Line = dict[str, Any]


def read_log(file: Path, step: str = "step") -> Iterator[Line]:
    """Read the lines with a whole number as `step`; a kill may have cut others."""
    if not file.exists():
        return
    require_regular_file(file)
    with file.open(encoding="utf-8", errors="replace") as texts:
        for text in texts:
            try:
                line = json.loads(text)
                operator.index(line[step])
            except (ValueError, KeyError, TypeError):
                continue
            yield line


def cut_log(file: Path, keep: Callable[[Line], bool], step: str = "step") -> list[Line]:
    """Keep some of the lines, as what a run that continues will log again has to go."""
    kept = [line for line in read_log(file, step) if keep(line)]
    if file.exists():
        write_text(file, "".join(f"{json.dumps(line)}\n" for line in kept))
    return kept
