"""The first ten minutes on a GPU: 25 checks, those that tell most first, and one file of results.

    make first-gpu                                    # output/first_gpu.json
    python tests/gpu/first_gpu.py --only 'attention|plan' --device cpu

Each check is some tests of this folder in a process of its own: what ends one, such as an illegal
access to memory, leaves the others alone. The file is written after each check.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CHECKS = {  # name -> file, and which of its tests
    "attention at 1024 px": ("test_attention.py", "by_itself and 1024 and global"),
    "attention at 1280 px": ("test_attention.py", "by_itself and 1280 and global"),
    "attention at 1536 px": ("test_attention.py", "by_itself and 1536 and global"),
    "attention at 2048 px": ("test_attention.py", "by_itself and 2048 and global"),
    "attention in windows": ("test_attention.py", "by_itself and 1024 and window"),
    "kernel of PyTorch's choice, memory": ("test_attention.py", "plain_kernel"),
    "gradients of the bias table": ("test_attention.py", "bias_table"),
    "plan and peak, EVA-L": ("test_commands.py", "planned and EVA-L"),
    "plan and peak, EVA-g": ("test_commands.py", "planned and EVA-g"),
    "loss scale of the engine": ("test_engine.py", "overflows"),
    "steps of the engine": ("test_engine.py", "pretraining_steps or contrastive_steps"),
    "cached features of CLIP": ("test_inference_and_compilation.py", "cached_features"),
    "a step beside a save": ("test_engine.py", "beside_a_running_save"),
    "a run that fails continues": ("test_engine.py", "accident"),
    "a run that is killed continues": ("test_engine.py", "is_killed"),
    "batch by processes": ("test_commands.py", "features_of_a_batch and processes"),
    "batch by actors of Ray": ("test_commands.py", "features_of_a_batch and Ray"),
    "two GPUs: engine": ("test_engine.py", "two_processes"),
    "two GPUs: detection": ("test_commands.py", "two_gpus and detection and not mmdetection"),
    "two GPUs: mmengine": ("test_commands.py", "two_gpus and (mmdetection or segmentation)"),
    "training of detectors": ("test_training.py", "detection"),
    "training of segmentors": ("test_training.py", "segmentation"),
    "as on the CPU": ("test_same_as_cpu.py", ""),
    "half precision, int8, compiled": (
        "test_inference_and_compilation.py", "features_of_images or maps_of or compiled",
    ),
    "pinned memory and TF32": ("test_loading_and_tf32.py", ""),
}  # fmt: skip
SHOWN = 3000  # characters of a failure


def run_check(file: str, tests: str, *, device: str, seconds: float) -> dict[str, Any]:
    """Run some tests of a file; the outcome, figures and failures."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        words = ["-q", "-p", "no:cacheprovider", f"--gpu-device={device}"]
        words += [f"--junit-xml={report}", "-o", "junit_family=xunit1"]  # which has figures
        call = [sys.executable, "-m", "pytest", *words, str(HERE / file), "-k", tests]
        process = subprocess.Popen(
            call, cwd=ROOT, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            output, _ = process.communicate()
            return {"outcome": "too slow", "failures": [output[-SHOWN:]]}
        if process.returncode not in (0, 1) or not report.exists():
            return {"outcome": f"ended with {process.returncode}", "failures": [output[-SHOWN:]]}
        return read_report(report)


def read_report(file: Path) -> dict[str, Any]:
    """Read pytest's report: the outcome, how many passed, figures, failures and skips."""
    cases = [*ET.parse(file).getroot().iter("testcase")]
    faults = [
        fault for case in cases for fault in (*case.findall("failure"), *case.findall("error"))
    ]
    skips = [skip.get("message", "") for case in cases for skip in case.findall("skipped")]
    passed = sum(len(case.findall("./")) == len(case.findall("properties")) for case in cases)
    return {
        "outcome": "failed" if faults else "passed" if passed else "skipped",
        "tests": len(cases),
        "passed": passed,
        "figures": [entry.get("value") for case in cases for entry in case.iter("property")],
        "failures": [(fault.text or "")[-SHOWN:] for fault in faults],
        "skips": sorted({*skips}),
    }


def describe_machine() -> dict[str, Any]:
    """Name GPUs and driver, versions and commit; torch is not asked, which would hold memory."""

    def ask(*words: str) -> list[str]:
        if not shutil.which(words[0]):
            return []
        ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        return ended.stdout.strip().splitlines()

    facts = "name,memory.total,driver_version"
    return {
        "gpus": ask("nvidia-smi", f"--query-gpu={facts}", "--format=csv,noheader"),
        "torch": ask(sys.executable, "-c", "import torch; print(torch.__version__)"),
        "python": platform.python_version(),
        "commit": ask("git", "describe", "--always", "--dirty"),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks in their order; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "output/first_gpu.json")
    parser.add_argument("--only", default="", metavar="PATTERN", help="of names of checks")
    parser.add_argument("--minutes", type=float, default=10, help="for all (default: %(default)s)")
    parser.add_argument("--each", type=float, default=3, help="for each (default: %(default)s)")
    parser.add_argument("--device", default="cuda", help="cpu only tries the checks out")
    options = parser.parse_args(arguments)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    began, results = time.monotonic(), describe_machine() | {"device": options.device}
    results["checks"] = checks = []
    for name, (file, tests) in CHECKS.items():
        if not re.search(options.only, name):
            continue
        start = time.monotonic()
        left = 60 * min(options.each, options.minutes - (start - began) / 60)
        check: dict[str, Any] = {"outcome": "no time left"}
        if left > 0:
            check = run_check(file, tests, device=options.device, seconds=left)
        checks.append({"name": name, "seconds": round(time.monotonic() - start, 1)} | check)
        results["seconds"] = round(time.monotonic() - began, 1)
        options.output.write_text(json.dumps(results, indent=1))
        print(f"{check['outcome']:<14} {checks[-1]['seconds']:6.1f} s  {name}", flush=True)  # noqa: T201
        for line in check.get("figures", ()):
            print(f"{'':24}{line}", flush=True)  # noqa: T201
    print(options.output)  # noqa: T201
    return int(any(check["outcome"] not in ("passed", "skipped") for check in checks))


if __name__ == "__main__":
    sys.exit(main())
