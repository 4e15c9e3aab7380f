"""Data sets of mmsegmentation and mmdetection, imported without the lines that they print.

They look for a commercial package that nobody here needs, and print `Could not import OneDL` on
standard output, twice, into whatever a program writes there.
"""

import contextlib
import importlib
import io
import sys

_NOISE = "Could not import OneDL"


def import_data_sets(package: str) -> None:
    """Import the data sets of a framework; what else they print stays.

    Args:
        package: `mmseg.datasets` or `mmdet.datasets`.
    """
    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown):
            importlib.import_module(package)
    finally:
        lines = shown.getvalue().splitlines(keepends=True)
        sys.stdout.writelines(line for line in lines if not line.startswith(_NOISE))
