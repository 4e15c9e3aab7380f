"""What a demo found in pictures, in a file of JSON and a table of CSV, written as it comes."""

import contextlib
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from eva_data.files import printable, replacing
from eva_report.demos import Prediction

JSON, TABLE = "predictions.json", "predictions.csv"
_DIGITS = 6  # of a probability


class PredictionsFiles:
    """Takes the classes of one file after another; `writing_predictions` opens one.

    Args:
        stream: The open file of JSON.
        table: The open file of CSV.
        settings: What the JSON says first.
        top: Classes of a file that are written, at most.
    """

    def __init__(
        self, stream: TextIO, table: TextIO, settings: Mapping[str, Any], *, top: int
    ) -> None:
        self._stream, self._files = stream, 0
        self._table = csv.writer(table, lineterminator="\n")
        more = [f"{head}_{place}" for place in range(2, top + 1)
                for head in ("class", "probability")]  # fmt: skip
        self._table.writerow(["file", "class", "probability", *more])
        stream.write(f'{{"settings": {json.dumps(dict(settings))},\n"files": [')

    def add(self, name: str, predictions: Sequence[Prediction], **facts: Any) -> None:
        """Write a file.

        Args:
            name: Name of the file.
            predictions: Its first classes, in falling order of probability.
            **facts: What else is known of it.
        """
        rounded = [(one.name, round(one.probability, _DIGITS)) for one in predictions]
        classes = [{"class": name, "probability": value} for name, value in rounded]
        self._write({"file": name, **facts, "classes": classes})
        cells = [cell for one in rounded for cell in one]
        self._table.writerow([printable(str(cell)) for cell in (name, *cells)])

    def add_unreadable(self, name: str, reason: str) -> None:
        """Write a file that could not be read; the table has none of these.

        Args:
            name: Name of the file.
            reason: Why not.
        """
        self._write({"file": name, "error": reason})

    def finish(self) -> None:
        """Write what follows the files."""
        self._stream.write("\n]}\n")

    def _write(self, entry: Mapping[str, Any]) -> None:
        self._stream.write(f"{',' if self._files else ''}\n  {json.dumps(entry)}")
        self._files += 1


@contextlib.contextmanager
def writing_predictions(
    folder: Path, settings: Mapping[str, Any], *, top: int
) -> Iterator[PredictionsFiles]:
    """Write predictions to files that appear under their names at the end.

    Args:
        folder: Folder of the files; it exists.
        settings: Settings of the demo.
        top: Classes of a file that are written, at most.

    Yields:
        The files to add predictions to.

    Raises:
        UnwritableError: If the disk is full or the folder read-only, for example.
    """
    with (
        replacing(folder / JSON) as json_part,
        replacing(folder / TABLE) as table_part,
        json_part.open("w", encoding="utf-8") as stream,
        table_part.open("w", encoding="utf-8", newline="") as table,
    ):
        predictions = PredictionsFiles(stream, table, settings, top=top)
        yield predictions
        predictions.finish()
