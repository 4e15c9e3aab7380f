"""PEP 517 build backend: sal-detectron2 0.7.2 (a cp310 wheel on PyPI) -> a py3-none-any wheel.

detectron2's own code is left alone, file by file. What changes, and nothing else:

* the compiled ``detectron2/_C.cpython-310-*.so`` is dropped;
* of the top-level package ``tools``, whose name collides with anything, the stock trainer is kept,
  unmodified, as ``detectron2_tools``: ``python -m detectron2_tools.lazyconfig_train_net``;
* the tag becomes py3-none-any, and the version gets the local label ``+py3``;
* ``Requires-Dist: numpy<2`` is widened, and fvcore and iopath, which detectron2 imports, are added.

An edit that does not match exactly once stops the build. The output is the same, byte for byte, on
every build.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

NAME, VERSION, LABEL = "sal_detectron2", "0.7.2", "py3"
SHA256 = "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
REQUIRES = ("numpy>=1.23", "fvcore<0.1.6,>=0.1.5", "iopath>=0.1.7")
KEPT_TOOLS = ("__init__.py", "lazyconfig_train_net.py")
SOURCE_DATE_EPOCH = "1733000000"  # the time stamp of every member of the wheel


def build_wheel(
    wheel_directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Build the wheel (PEP 517; there is no source distribution) and return its file name."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        _run("wheel", "unpack", "--dest", "tree", str(_download(work)), cwd=work)
        tree = work / "tree" / f"{NAME}-{VERSION}"
        _edit(tree)
        destination = str(Path(wheel_directory).resolve())
        _run("wheel", "pack", "--dest-dir", destination, str(tree), cwd=work)  # writes a new RECORD
    return f"{NAME}-{VERSION}+{LABEL}-py3-none-any.whl"


def _download(folder: Path) -> Path:
    pin = folder / "pin.txt"
    pin.write_text(f"sal-detectron2=={VERSION} --hash=sha256:{SHA256}\n")
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--dest=."]
    target = ["--implementation=cp", "--python-version=3.10"]
    _run("pip", "download", *options, *target, "-r", pin.name, cwd=folder)
    return next(folder.glob("*.whl"))


def _edit(tree: Path) -> None:
    for library in tree.glob("detectron2/_C.*.so"):
        library.unlink()

    (tree / "detectron2_tools").mkdir()
    for name in KEPT_TOOLS:
        (tree / "tools" / name).rename(tree / "detectron2_tools" / name)
    shutil.rmtree(tree / "tools")

    info = tree / f"{NAME}-{VERSION}.dist-info"
    requires = "\n".join(f"Requires-Dist: {requirement}" for requirement in REQUIRES)
    _substitute(info / "METADATA", r"^Version: .*$", f"Version: {VERSION}+{LABEL}")
    _substitute(info / "METADATA", r"^Requires-Dist: numpy<2$", requires)
    _substitute(info / "WHEEL", r"^Root-Is-Purelib: false$", "Root-Is-Purelib: true")
    _substitute(info / "WHEEL", r"^Tag: .*$", "Tag: py3-none-any")
    _substitute(info / "top_level.txt", r"^tools$", "detectron2_tools")
    info.rename(tree / f"{NAME}-{VERSION}+{LABEL}.dist-info")


def _substitute(path: Path, pattern: str, replacement: str) -> None:
    content = path.read_text(encoding="utf-8")
    content, count = re.subn(pattern, replacement, content, flags=re.MULTILINE)
    if count != 1:
        raise SystemExit(f"{path.name}: {pattern!r} matched {count} times, expected once")
    path.write_text(content, encoding="utf-8")


def _run(*arguments: str, cwd: Path) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH}
    subprocess.run([sys.executable, "-m", *arguments], cwd=cwd, check=True, env=environment)
