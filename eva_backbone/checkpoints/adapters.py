"""Folders of adapters in peft's format, merged with their base into weights of official names.

`adapter_config.json` names the base, and as its `revision` the SHA-256 of the base's file.
`adapter_model.safetensors` holds the low-rank factors and whole tensors: everything that the base
does not have as the model has it. Its metadata list the names of what the base gives.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from eva_backbone.checkpoints.registry import resolve_source, weights_directories
from eva_backbone.checkpoints.run_folders import ADAPTER_CONFIG
from eva_backbone.checkpoints.verification import require_regular_file, verify_once

PREFIX = "base_model.model."  # of peft, in front of each name
NAMES = "base_names"  # key of the metadata: what the base gives, name in the model -> in the base
FACTOR = re.compile(r"(.+)\.lora_(A|B)\.weight")
_MOST_CONFIG = 2**20  # bytes
# Forms of adapters that peft knows and that are not merged here: key -> the only value.
_PLAIN: Mapping[str, Any] = {
    "peft_type": "LORA", "bias": "none", "use_rslora": False, "use_dora": False,
    "fan_in_fan_out": False, "lora_bias": False,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """What `adapter_config.json` says: rank, scale of B @ A, name and SHA-256 of the base."""

    rank: int
    scale: float
    base: str
    sha256: str

    @classmethod
    def read(cls, folder: Path) -> "AdapterConfig":
        """Read the config of a folder; a ValueError names what this toolkit does not write."""
        file = require_regular_file(folder / ADAPTER_CONFIG)
        try:
            with file.open("rb") as stream:
                content = json.loads(stream.read(_MOST_CONFIG))
            rank, alpha = content["r"], content["lora_alpha"]
            base, sha256 = content["base_model_name_or_path"], content["revision"]
            odd = {k: content[k] for k, v in _PLAIN.items() if content.get(k, v) != v}
            odd |= {k: v for k, v in content.items() if k.endswith("_pattern") and v}
            numbers = type(rank) is int and rank > 0 and 0 < float(alpha) < math.inf
            texts = isinstance(base, str) and re.fullmatch("[0-9a-f]{64}", str(sha256))
            if odd or not (numbers and texts):
                given = {"r": rank, "lora_alpha": alpha, "base": base, "revision": sha256} | odd
                raise ValueError(str(given)[:500])
            return cls(rank=rank, scale=alpha / rank, base=base, sha256=sha256)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{file} is no adapter of this toolkit, with r, lora_alpha, the name of its base "
                f"and the base's SHA-256 as revision ({type(error).__name__}: {error})"
            ) from error


def find_base(config: AdapterConfig, folder: Path) -> Path:
    """Find the base of an adapter by its name, else by its file name beside it or in $EVA_WEIGHTS.

    Raises:
        FileNotFoundError: If it is not on this machine and cannot be downloaded.
        ValueError: If it is another file than the adapter was trained on.
    """
    try:
        path = resolve_source(config.base)
    except (FileNotFoundError, ValueError) as error:
        places = (folder, *weights_directories())
        found = [place / Path(config.base).name for place in places]
        if (path := next(filter(Path.is_file, found), None)) is None:  # type: ignore[assignment]
            raise FileNotFoundError(
                f"the base of the adapter {folder} is not here: {error} Or put it beside the "
                "adapter, under its name"
            ) from error
    advice = f"the adapter {folder} was trained on {config.base} and fits no other weights"
    verify_once(path, config.sha256, advice=advice, of="its base")
    return path


def merge(
    config: AdapterConfig, base: Mapping[str, Tensor], tensors: Mapping[str, Tensor], file: Path
) -> dict[str, Tensor]:
    """Add scale * B @ A in float32 to the base, and take whole tensors in place of the base's.

    Args:
        config: Config of the adapter.
        base: Name -> tensor of the base.
        tensors: Name -> tensor of `adapter_model.safetensors`.
        file: Its path, whose metadata list what the base gives.

    Returns:
        Name in the model -> tensor.

    Raises:
        ValueError: If base and adapter do not fit together.
    """
    own = {name.removeprefix(PREFIX): value for name, value in tensors.items()}
    name = NAMES
    try:
        with safe_open(file, framework="pt") as content:
            names: dict[str, str] = json.loads(content.metadata()[NAMES])
        merged = {name: base[names[name]] for name in names}
        for name, value in own.items():
            factor = FACTOR.fullmatch(name)
            if not factor:
                merged[name] = value
            elif factor[2] == "B":
                down, weight = own[f"{factor[1]}.lora_A.weight"], merged[f"{factor[1]}.weight"]
                update = config.scale * (value.float() @ down.float())
                if len(down) != config.rank or update.shape != weight.shape:
                    raise ValueError(
                        f"rank {len(down)} and shape {(*update.shape,)}, and r is {config.rank} "
                        f"and the base's shape {(*weight.shape,)}"
                    )
                merged[f"{factor[1]}.weight"] = weight.float() + update
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{file} does not fit {ADAPTER_CONFIG} and its base {config.base}, at {name} "
            f"({type(error).__name__}: {error})"
        ) from error
    return merged
