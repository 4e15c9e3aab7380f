"""`eva doctor --install`: the commands of pip that install a part, and their execution."""

import shlex
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

from eva_command.doctor.packages import REPACKED, UPSTREAM, extras, installed_version
from eva_runs.commands import say
from eva_runs.extras import TOOLKIT

DETECTRON2 = "detectron2"
MMCV_OPERATORS = "mmcv-operators"
SOURCES = {"repack": REPACKED, "upstream": UPSTREAM}
_UPSTREAM_SOURCE = "git+https://github.com/facebookresearch/detectron2.git"
_PACKAGES = Path(__file__).resolve().parents[2]  # site-packages, or core/ of a checkout


def build_folder(what: str) -> Path:
    """Return the folder from which pip builds a part.

    Args:
        what: `detectron2`, of which it is the checked copy, or `mmcv-operators`.

    Raises:
        FileNotFoundError: If the installed toolkit lacks it.
    """
    name = what.replace("-", "_")
    for folder in (_PACKAGES / "eva_recipes" / "third_party", _PACKAGES.parent / "third_party"):
        if (folder / name / "pyproject.toml").is_file():
            return folder / name
    raise FileNotFoundError(f"the build of {what} is not below {_PACKAGES}; reinstall {TOOLKIT}")


def install_commands(what: str, source: str = "repack") -> list[list[str]]:
    """List the commands that install a part of the toolkit.

    Args:
        what: `detectron2`, `mmcv-operators`, or an extra.
        source: Source of detectron2: `repack`, the copy on PyPI whose SHA-256 is checked;
            `upstream`, its repository, compiled here; or what pip takes as a requirement.

    Returns:
        Commands, to be run one after the other.

    Raises:
        ValueError: If there is no such part.
    """
    pip = [sys.executable, "-m", "pip"]
    if what == MMCV_OPERATORS:
        return [[*pip, "install", str(build_folder(what))]]
    if what != DETECTRON2:
        if what not in extras():
            known = ", ".join([DETECTRON2, MMCV_OPERATORS, *extras()])
            raise ValueError(f"--install {what}: there is no such part; known are {known}")
        return [[*pip, "install", f"{TOOLKIT}[{what}]"]]
    wanted = SOURCES.get(source, UPSTREAM)
    others = [name for name in (UPSTREAM, REPACKED) if installed_version(name) and name != wanted]
    commands = [[*pip, "uninstall", "--yes", *others]] if others else []  # own the same files
    if source == "repack":
        return [*commands, [*pip, "install", str(build_folder(what))]]
    # upstream imports torch when it is built
    requirement = _UPSTREAM_SOURCE if source == "upstream" else source
    return [*commands, [*pip, "install", "--no-build-isolation", requirement]]


def install(what: str, source: str, *, dry_run: bool) -> int:
    """Install a part of the toolkit into the Python that runs this.

    Args:
        what: As for `install_commands`.
        source: As there.
        dry_run: Print the commands only.

    Returns:
        The exit code of the first command that fails, or 0.

    Raises:
        ValueError: If there is no such part, or this Python has no pip.
    """
    commands = install_commands(what, source)
    # not importlib.util.find_spec: setuptools' hook answers it for pip, with a warning
    if not dry_run and PathFinder.find_spec("pip") is None:
        raise ValueError(f"{sys.executable} has no pip; `python -m ensurepip` adds it")
    for command in commands:
        say(shlex.join(command))
        if not dry_run:
            sys.stdout.flush()
            code = subprocess.run(command, check=False).returncode
            if code:
                return code
    return 0
