"""Frameworks imported without what they say and load beside.

mmsegmentation and mmdetection look for a commercial package that nobody here needs, and print
`Could not import OneDL` on standard output, twice, into whatever a program writes there.
"""

import contextlib
import importlib
import io
import sys
from collections.abc import Iterator

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


@contextlib.contextmanager
def without_deepspeed() -> Iterator[None]:
    """Let mmengine's runner be imported without DeepSpeed, which `EVARunner` has no use for.

    mmengine imports it if it is there: that takes two seconds, and prints which accelerator it has
    found.
    """
    name = "deepspeed"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # an import of it fails
    try:
        yield
    finally:
        del sys.modules[name]
