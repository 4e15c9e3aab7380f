"""What is not installed, as one sentence with the command that installs it.

A package that a project imports belongs to an optional part ("extra") of this toolkit; detectron2,
which upstream does not publish on PyPI, to none: `eva doctor` installs it.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

TOOLKIT = "eva-toolkit"
DETECTRON2 = "eva doctor --install detectron2"
_PACKAGES: dict[str, tuple[str, ...]] = {  # extra -> names under which its packages are imported
    "": ("torch", "numpy", "safetensors", "PIL", "packaging", "tqdm"),  # of the toolkit itself
    "detection": (
        *("fvcore", "iopath", "omegaconf", "hydra", "pycocotools", "lvis", "faster_coco_eval"),
        *("shapely", "tabulate", "pkg_resources"),
    ),
    "segmentation": ("mmengine", "mmcv", "mmseg", "mmdet", "yaml"),
    "engine": ("deepspeed", "timm", "tensorboard", "torchvision", "tyro", "rich"),
    "clip": ("open_clip",),
    "video": ("av",),
    "torchcodec": ("torchcodec",),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "demo": ("cv2", "matplotlib", "scipy", "skimage", "sklearn"),
    "hub": ("huggingface_hub",),
}
_EXTRA_OF = {package: extra for extra, packages in _PACKAGES.items() for package in packages}
_ALONE = ("", "torchcodec", "export", "hub")  # in no other extra
TASK_OF = {  # package of a project -> the extra that has all it needs
    "eva_detection": "detection",
    "eva_segmentation": "segmentation",
    "eva_mmdetection": "mmdetection",
    "eva_classification": "classification",
    "eva_pretrain": "pretrain",
    "eva_video": "video",
    "eva_contrastive": "clip",
    "eva_demo": "demo",
}


def install_command(package: str, project: str = "") -> str | None:
    """Return the command that installs a package which this toolkit imports.

    Args:
        package: Name under which it is imported.
        project: Package of the project that wants it: its extra is named, which has all it needs.

    Returns:
        The command, or None for a package that belongs to no extra.
    """
    if package == "detectron2":
        return DETECTRON2
    extra = _EXTRA_OF.get(package)
    if extra is None:
        return None
    if extra not in _ALONE:
        extra = TASK_OF.get(project, extra)
    return f"pip install '{TOOLKIT}[{extra}]'" if extra else f"pip install {TOOLKIT}"


def sentence_of(error: ImportError) -> str | None:
    """Say what is not installed, and how it is.

    Args:
        error: The failed import.

    Returns:
        The sentence, or None if the import failed for another reason.
    """
    package = error.name or ""
    if not isinstance(error, ModuleNotFoundError) or "." in package:  # a part of what is there
        return None
    command = install_command(package, _project_of(error))
    if command is None:
        return None
    return f"{package} is not installed; this installs it: {command}"


def explained(main: Callable[..., int | None]) -> Callable[..., int | None]:
    """Have a command end with one sentence where a package is not installed.

    Args:
        main: Function of a command line.

    Returns:
        The same, which exits with 1 after that sentence.
    """

    @functools.wraps(main)
    def wrapped(*arguments: Any, **options: Any) -> int | None:
        try:
            return main(*arguments, **options)
        except ImportError as error:
            sentence = sentence_of(error)
            if sentence is None:
                raise
            sys.exit(sentence)

    return wrapped


def _project_of(error: BaseException) -> str:
    """Package of the innermost module of a project that the error came through."""
    found = ""
    trace = error.__traceback__
    while trace is not None:
        package = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        found = package if package in TASK_OF else found
        trace = trace.tb_next
    return found
