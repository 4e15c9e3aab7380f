"""PEP 517 build backend: `_ext.py` -> a wheel eva-mmcv-operators, which owns `mmcv/_ext.py` alone.

mmcv's own wheel has no file of this name, so pip installs, replaces and removes either without the
other. The output is the same, byte for byte, on every build.
"""

import base64
import hashlib
import zipfile
from pathlib import Path
from typing import Any

NAME, VERSION, TAG = "eva_mmcv_operators", "1.0", "py3-none-any"
SOURCE = Path(__file__).with_name("_ext.py")
METADATA = f"""\
Metadata-Version: 2.1
Name: {NAME.replace("_", "-")}
Version: {VERSION}
Summary: mmcv's operators by torchvision, for an mmcv without compiled ones; needs eva-toolkit
Requires-Python: >=3.11
License: MIT
"""
WHEEL = f"""\
Wheel-Version: 1.0
Generator: one_file
Root-Is-Purelib: true
Tag: {TAG}
"""


def build_wheel(
    wheel_directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Build the wheel (PEP 517; there is no source distribution) and return its file name."""
    info = f"{NAME}-{VERSION}.dist-info"
    files = {
        "mmcv/_ext.py": SOURCE.read_bytes(),
        f"{info}/METADATA": METADATA.encode(),
        f"{info}/WHEEL": WHEEL.encode(),
    }
    record = [f"{name},{_hash(data)},{len(data)}" for name, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    wheel = f"{NAME}-{VERSION}-{TAG}.whl"
    with zipfile.ZipFile(Path(wheel_directory) / wheel, "w") as archive:
        for name, data in files.items():
            member = zipfile.ZipInfo(name)  # of 1980
            member.external_attr = 0o100644 << 16
            archive.writestr(member, data)
    return wheel


def _hash(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest())
    return "sha256=" + digest.rstrip(b"=").decode()
