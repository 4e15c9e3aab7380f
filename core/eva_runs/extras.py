"""What is not installed, as one sentence with the command that installs it.

A package that a project imports belongs to an optional part ("extra") of this toolkit; detectron2,
which upstream does not publish on PyPI, to none: `eva doctor` installs it.
"""

TOOLKIT = "eva-toolkit"
DETECTRON2 = "eva doctor --install detectron2"
PACKAGES: dict[str, tuple[str, ...]] = {  # extra -> names under which its packages are imported
    "": (
        "torch",
        "numpy",
        "safetensors",
        "PIL",
        "packaging",
        "tifffile",
        "tqdm",
    ),  # of the toolkit itself
    "detection": (
        *("fvcore", "iopath", "omegaconf", "hydra", "pycocotools", "lvis", "hotcoco"),
        *("faster_coco_eval", "shapely", "tabulate", "pkg_resources", "supervision"),
    ),
    "segmentation": ("mmengine", "mmcv", "mmseg", "mmdet", "yaml"),
    "engine": ("deepspeed", "timm", "tensorboard", "torchvision", "tyro", "rich"),
    "clip": ("open_clip",),
    "video": ("av",),
    "export": ("onnx", "onnx_ir", "onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
    "demo": ("cv2", "matplotlib", "scipy", "skimage", "sklearn"),
    "hub": ("huggingface_hub",),
    "lora": ("peft",),
    "int8": ("torchao",),
    "track": ("trackers",),
    "batch": ("pyarrow", "fsspec"),
    "cluster": ("ray",),
    "index": ("faiss",),
    "bands": ("rasterio", "imagecodecs"),
    "app": ("gradio",),
}
_ALONE = (
    "",
    "export",
    "openvino",
    "hub",
    "lora",
    "int8",
    "track",
    "batch",
    "cluster",
    "index",
    "bands",
    "app",
)
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
    """Return the command that installs a package which this toolkit imports; None for others.

    Args:
        package: Name under which it is imported.
        project: Package of the project that wants it: its extra is named, which has all it needs.
    """
    if package == "detectron2":
        return DETECTRON2
    extra = next((extra for extra, packages in PACKAGES.items() if package in packages), None)
    if extra not in (None, *_ALONE):
        extra = TASK_OF.get(project, extra)
    return None if extra is None else f"pip install '{TOOLKIT}{extra and f'[{extra}]'}'"


def describe_missing_package(error: BaseException | None) -> str | None:
    """Say what is not installed, and how it is; None if an error has another reason."""
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__ or error.__context__  # mmengine's name a plugin alone
    if error is None:
        return None
    command = install_command(error.name or "", _project_of(error))
    return f"{error.name} is not installed; this installs it: {command}" if command else None


def _project_of(error: BaseException) -> str:
    """Package of the innermost module of a project that the error came through."""
    extra = ""
    trace = error.__traceback__
    while trace is not None:
        package = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        extra = package if package in TASK_OF else extra
        trace = trace.tb_next
    return extra
