"""mmsegmentation's data sets, imported without the lines that they print.

They look for a commercial package that nobody here needs, and print `Could not import OneDL` on
standard output, twice, into whatever a program writes there.
"""

import contextlib
import importlib
import io
import sys

_NOISE = "Could not import OneDL"


def import_data_sets() -> None:
    """Import `mmseg.datasets`; what else it prints stays."""
    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown):
            importlib.import_module("mmseg.datasets")
    finally:
        lines = shown.getvalue().splitlines(keepends=True)
        sys.stdout.writelines(line for line in lines if line.strip() != _NOISE)
