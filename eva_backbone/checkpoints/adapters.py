"""Folders of adapters in peft's format, merged with their base into weights of official names.

`adapter_config.json` has the name of the base, and as `revision` the SHA-256 of its file;
`adapter_model.safetensors` the factors, and whole what the base does not have as the model has it.
Its metadata say which tensors of the base are which of the model.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from eva_backbone.checkpoints.registry import resolve_source, weights_directories
from eva_backbone.checkpoints.run_folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from eva_backbone.checkpoints.verification import require_regular_file, verify_once

PREFIX, BASE_NAMES = "base_model.model.", "base_names"  # of each name; key of the metadata
BASE, SHA256_OF_BASE = "base_model_name_or_path", "revision"  # keys of the config
_MOST_CONFIG = 2**20  # bytes
_UNKNOWN = re.compile("use_(rslora|dora)|fan_in_fan_out|lora_bias|(rank|alpha)_pattern")
Tensors = Mapping[str, Tensor]


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Read `adapter_config.json`; a ValueError names what this toolkit writes into none."""
    with require_regular_file(folder / ADAPTER_CONFIG).open("rb") as stream:
        content = stream.read(_MOST_CONFIG)
    try:
        config: dict[str, Any] = json.loads(content)
        settings = {
            key: config[key] for key in ("peft_type", "r", "lora_alpha", BASE, SHA256_OF_BASE)
        }
        kind, rank, alpha, base, sha256 = settings.values()
        fits = kind == "LORA" and type(rank) is int and rank > 0 and 0 < alpha < math.inf
        unknown = {k: v for k, v in config.items() if v and _UNKNOWN.fullmatch(k)}
        if unknown or not (fits and Path(base).name and re.fullmatch("[0-9a-f]{64}", sha256)):
            raise ValueError(str(settings | unknown))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{folder / ADAPTER_CONFIG} is of no adapter of this toolkit, with a rank, an alpha, "
            f"and a base with its SHA-256 ({type(error).__name__}: {error!s:.500})"
        ) from error
    return config


def find_base(config: Mapping[str, Any], folder: Path) -> Path:
    """Find the base by its name, else a file of this name beside the adapter or in $EVA_WEIGHTS.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is another file than the adapter was trained on.
    """
    name = config[BASE]
    candidates = [
        folder_of_base / Path(name).name for folder_of_base in (folder, *weights_directories())
    ]
    candidates = [file for file in candidates if file != folder / ADAPTER_WEIGHTS]
    matches = [] if Path(name).is_file() else [*filter(Path.is_file, candidates)]
    try:
        path = matches[0] if matches else resolve_source(name)
    except (FileNotFoundError, ValueError) as error:
        message = f"the base of the adapter {folder} is missing; it may lie beside it: {error}"
        raise FileNotFoundError(message) from error
    advice = f"the adapter {folder} was trained on {name} and fits no other weights"
    verify_once(path, config[SHA256_OF_BASE], advice=advice, of="its base")
    return path


def merge(
    config: Mapping[str, Any], base: Tensors, tensors: Tensors, file: Path
) -> dict[str, Tensor]:
    """Add scale * B @ A of the `tensors` of a file to the base in float32, by names of the model.

    A ValueError names what does not fit.
    """
    own, name = {key.removeprefix(PREFIX): value for key, value in tensors.items()}, BASE_NAMES
    try:
        with safe_open(file, framework="pt") as content:
            names: dict[str, str] = json.loads(content.metadata()[BASE_NAMES])
        merged = {name: base[names[name]] for name in names}
        merged |= {name: value for name, value in own.items() if ".lora_" not in name}
        for name in own.keys() - merged.keys():
            layer, _, part = name.rpartition(".lora_")
            down, up = (own[f"{layer}.lora_{factor}.weight"] for factor in "AB")
            if part == "B.weight":
                weight, scale = merged[f"{layer}.weight"], config["lora_alpha"] / config["r"]
                if (len(up), *down.shape[1:], len(down)) != (*weight.shape, config["r"]):
                    raise ValueError(f"shapes {up.shape} x {down.shape} of rank {config['r']}")
                merged[f"{layer}.weight"] = weight.float() + scale * (up.float() @ down.float())
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{file} does not fit {ADAPTER_CONFIG} and the base {config[BASE]}, at {name} "
            f"({type(error).__name__}: {error})"
        ) from error
    return merged
