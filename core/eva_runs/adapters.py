"""Adapters of a run: what they share with the weights that it began from, and their folder.

A folder is peft's: `peft.PeftModel.from_pretrained(model_of_the_base, folder)` loads it, and so
does everything here that takes weights (`eva_backbone.checkpoints.adapters`).
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eva_backbone.checkpoints.adapters import NAMES, PREFIX
from eva_backbone.checkpoints.convert import find_trunk
from eva_backbone.checkpoints.reading import read_weights
from eva_backbone.checkpoints.registry import SHA256, resolve_source
from eva_backbone.checkpoints.run_folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from eva_backbone.checkpoints.verification import sha256_of
from eva_backbone.lora import LoraSettings, add_adapters
from eva_data.files import make_folder, write_tensors, write_text

_FACTOR = ".lora_"
_INSIDE = ".base_layer."  # of a layer that has an adapter


class Adapters:
    """Adapters of a model, to which they are added.

    Saved is what the base does not have: the factors, what is trained beside them, and what has
    another size than in the base, such as positions for other images.

    Args:
        model: The ViT or any model around it on the CPU, with its first weights, and with all that
            is frozen beside the ViT; see `eva_backbone.lora.add_adapters`.
        settings: Adapters, of a rank above 0.
        base: Name or path of the weights that the model began from.

    Attributes:
        names: Names in the model's state dict that are saved.
        identity: Settings and base, which have to be the same where a run continues.

    Raises:
        ValueError: If there is no base, or adapters do not fit the model.
    """

    def __init__(
        self, model: nn.Module, settings: LoraSettings, base: str | os.PathLike[str]
    ) -> None:
        if not str(base):
            raise ValueError(
                f"lora.rank={settings.rank} needs weights to adapt, and the ViT begins at random: "
                "name them, such as model.init_checkpoint=eva_l_psz14.pt"
            )
        path = resolve_source(base)
        add_adapters(model, settings)
        self._settings, self._root = settings, _modules_by_tensor(model)
        self._shared = _shared(model, read_weights(path))
        self.names = frozenset(
            name for name in model.state_dict() if _official(name) not in self._shared
        )
        self._targets = sorted(
            name.partition(_FACTOR)[0] for name in self.names if f"{_FACTOR}A." in name
        )
        self._base = os.fspath(path if Path(base).is_dir() else base)
        sha256 = SHA256.get(path.name) or sha256_of(path)
        self.identity = {**vars(settings), "layers": [*settings.layers], "base_sha256": sha256}

    def write(
        self, state: Mapping[str, Tensor], folder: Path, notes: Mapping[str, str] | None = None
    ) -> None:
        """Write the folder, each file completely or not at all; the config never changes.

        Args:
            state: State dict of the model, or `names` of it.
            folder: The folder, which is made.
            notes: Further metadata of `adapter_model.safetensors`.
        """
        tensors = {
            PREFIX + _official(name).replace(".default.", "."): state[name]
            for name in sorted(self.names)
        }
        make_folder(folder)
        write_text(folder / ADAPTER_CONFIG, json.dumps(self._config(), indent=2) + "\n")
        metadata = {**(notes or {}), "format": "pt", NAMES: json.dumps(self._shared)}
        write_tensors(tensors, folder / ADAPTER_WEIGHTS, metadata)

    def _config(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "peft_type": "LORA",
            "base_model_name_or_path": self._base,
            "revision": self.identity["base_sha256"],
            "r": settings.rank,
            "lora_alpha": settings.scale * settings.rank,
            "lora_dropout": settings.dropout,
            "bias": "none",
            "target_modules": self._targets,
            "modules_to_save": self._saved_modules(),
            "inference_mode": True,
        }

    def _saved_modules(self) -> list[str]:
        """Name the outermost modules of which everything is saved, as peft wraps them."""
        own = {name for name in self.names if _FACTOR not in name}
        found: list[str] = []
        for module, tensors in self._root.items():
            inside = any(module.startswith(f"{outer}.") for outer in found)
            if module and tensors and tensors <= own and not inside:
                found.append(module)
        return found


def _modules_by_tensor(model: nn.Module) -> dict[str, set[str]]:
    """Module -> names of all tensors in it, from outer to inner modules."""
    names = list(model.state_dict())
    return {
        module: {name for name in names if name.startswith(f"{module}.")}
        for module, _ in model.named_modules()
    }


def _official(name: str) -> str:
    return name.replace(_INSIDE, ".")


def _shared(model: nn.Module, base: Mapping[str, Tensor]) -> dict[str, str]:
    """Find what is frozen and the same in the base: name in the model -> in the base."""
    frozen = {
        _official(name): parameter.detach()
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad
    }
    state = {_official(name): value for name, value in model.state_dict().items()}
    prefix, stored = find_trunk(state, name="the model"), find_trunk(base, name="the base")
    shared = {}
    for name, value in frozen.items():
        named = stored + name.removeprefix(prefix) if name.startswith(prefix) else name
        other = base.get(named)
        if other is not None and torch.equal(other.to(value.dtype), value):
            shared[name] = named
    return shared
