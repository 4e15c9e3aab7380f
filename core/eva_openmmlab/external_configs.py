"""Configs such as `mmseg::NAME` come from the maintained forks, and mmengine installs nothing.

mmengine knows distributions by the names of the original projects. It does not find
`mmsegmentation` where `onedl-mmsegmentation` is, and runs `pip install mmsegmentation`, which lays
the original over the same files; other projects of OpenMMLab bring the original mmcv along.
"""

from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, distribution

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import package_utils

FORKS = {
    "mmseg": "onedl-mmsegmentation",
    "mmdet": "onedl-mmdetection",
    "mmpretrain": "onedl-mmpretrain",
}
# that own the same files as a fork, or bring one along that does
_ORIGINALS = {"mmcv", "mmcv-full", "mmcv-lite", "mmengine", "mmengine-lite"} | {
    *MODULE2PACKAGE,
    *MODULE2PACKAGE.values(),
}
_VERSIONS = '`pip install "eva-toolkit[segmentation]"`'


def is_there(name: str) -> bool:
    """Return whether a distribution is installed."""
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def serve_forks() -> None:
    """Let mmengine find the configs of the forks that are installed in place of the originals."""
    for module, fork in FORKS.items():
        original = MODULE2PACKAGE[module]
        if original != fork and is_there(fork) and not is_there(original):
            MODULE2PACKAGE[module] = fork


class Refusing:
    """mmengine's `call_command`, which `install_package` calls, without OpenMMLab's packages.

    Args:
        call: mmengine's function.
    """

    def __init__(self, call: Callable[[list[str]], None]) -> None:
        self._call = call

    def __call__(self, cmd: Sequence[str]) -> None:
        """Run a command.

        Args:
            cmd: Program and arguments.

        Raises:
            ValueError: If it would install a package of OpenMMLab.
        """
        name = cmd[-1] if "install" in cmd else ""
        if name.lower().replace("_", "-") in _ORIGINALS | {*FORKS.values()}:
            raise ValueError(
                f"mmengine would run `pip install {name}`, which may replace the maintained forks "
                f"of mmengine, mmcv, mmsegmentation and mmdetection; {_VERSIONS} installs what is "
                "tested together, and a config is also found by its path"
            )
        self._call(list(cmd))


def refuse_installation() -> None:
    """Put the refusal in place, once."""
    if not isinstance(package_utils.call_command, Refusing):
        package_utils.call_command = Refusing(package_utils.call_command)
