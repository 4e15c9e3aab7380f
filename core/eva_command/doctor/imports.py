"""Whether what is installed can be imported, found out in another process: one may crash."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from eva_command.doctor.findings import Finding

PACKAGES = (
    *("torch", "torchvision", "cv2", "detectron2", "mmengine", "mmcv", "mmseg", "mmdet"),
    *("deepspeed", "timm", "open_clip", "av", "onnxruntime", "torchcodec"),
)
OPTIONAL = {
    "torchcodec": "videos are decoded by PyAV; it needs FFmpeg's shared libraries "
    "(Debian: apt install ffmpeg)"
}
LIBRARIES = {"cv2": "apt-get install libgl1 libglib2.0-0"}  # what slim images lack
_LIMIT = 300  # seconds
_PROGRAM = """
import importlib, json, os, sys
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for name in sys.argv[1:]:
    print(json.dumps({"begun": name}), file=out, flush=True)
    try:
        importlib.import_module(name)
        error = ""
    except BaseException as caught:
        error = f"{type(caught).__name__}: {caught}"
    print(json.dumps({"name": name, "error": error}), file=out, flush=True)
if "torch" in sys.modules and hasattr(sys.modules["torch"], "cuda"):
    torch = sys.modules["torch"]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.cuda.get_device_name(i) for i in range(count)]
    print(json.dumps({"cuda": torch.version.cuda, "gpus": gpus}), file=out, flush=True)
"""


def check_imports(packages: Sequence[str] = PACKAGES) -> list[Finding]:
    """Import the packages that are installed, and look for GPUs.

    Args:
        packages: Names under which they are imported.

    Returns:
        A finding for each that fails, and one for the GPU if torch can be imported.
    """
    there = [name for name in packages if importlib.util.find_spec(name) is not None]
    begun, findings = "", []
    for line in _lines(there):
        begun = str(line.get("begun", begun))
        if "error" in line:
            begun = ""
            if line["error"]:
                findings.append(_failed(line["name"], line["error"]))
        if "gpus" in line:
            findings.append(_gpu(line["gpus"], line["cuda"]))
    if begun:
        findings.append(_failed(begun, "the process that imported it crashed, or took too long"))
    return findings


def _lines(packages: list[str]) -> list[dict[str, Any]]:
    command = [sys.executable, "-c", _PROGRAM, *packages]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT, check=False)
        text = done.stdout
    except subprocess.TimeoutExpired as expired:
        text = (expired.stdout or b"").decode(errors="replace")
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def _failed(name: str, error: str) -> Finding:
    first = " ".join(error.split())[:200]
    if name in OPTIONAL:
        return Finding("note", name, f"cannot be imported; {OPTIONAL[name]}")
    return Finding("broken", name, f"cannot be imported: {first}", LIBRARIES.get(name, ""))


def _gpu(gpus: list[str], cuda: str | None) -> Finding:
    if gpus:
        return Finding("ok", "GPU", f"{', '.join(gpus)} (CUDA {cuda})")
    if cuda is None:
        return Finding("note", "GPU", "torch is a build without CUDA; everything runs on the CPU")
    return Finding("note", "GPU", f"none that torch (CUDA {cuda}) can use")
