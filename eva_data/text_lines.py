"""Text files with one sentence in each line."""

import os
from pathlib import Path

from eva_data.files import require_regular_file


def read_lines(file: str | os.PathLike[str]) -> list[str]:
    """Read the lines of a text file, without the spaces around them.

    Blank lines at its end are left out.

    Args:
        file: A file in UTF-8.

    Returns:
        The lines, at least one.

    Raises:
        OSError: If it is not there, or cannot be read.
        ValueError: If it is not text in UTF-8, is empty, or has a blank line between others.
    """
    path = Path(file)
    require_regular_file(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except ValueError as error:
        raise ValueError(f"{path} is not text in UTF-8 ({error}): save it as UTF-8") from error
    lines = [line.strip() for line in text.rstrip().split("\n")]
    if lines == [""]:
        raise ValueError(f"{path} is empty: write one text in each line")
    if "" in lines:
        number = lines.index("") + 1
        raise ValueError(f"{path} has a blank line {number}, which is not a text: remove it")
    return lines
