"""Adapters of a run: what they share with the weights that it began from, and their folder.

A folder is peft's: `peft.PeftModel.from_pretrained(model_of_the_base, folder)` loads it, and so
does everything here that takes weights (`eva_backbone.checkpoints.adapters`).
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eva_backbone.checkpoints.adapters import BASE, BASE_NAMES, PREFIX, SHA256_OF_BASE
from eva_backbone.checkpoints.convert import find_trunk
from eva_backbone.checkpoints.families import to_eva_names
from eva_backbone.checkpoints.reading import read_weights
from eva_backbone.checkpoints.registry import list_official_files, resolve_source
from eva_backbone.checkpoints.run_folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS, LORA
from eva_backbone.checkpoints.verification import sha256_of
from eva_backbone.lora import LoraSettings, add_adapters
from eva_data.saving import write_tensors, write_text

logger = logging.getLogger(__name__)


class Adapters:
    """Adapters, which are added to a model, and what is saved of it: all that the base lacks.

    So the factors, what is trained beside them, and what is of another size, such as positions.

    Args:
        model: The ViT or any model around it on the CPU, with its first weights, and with all that
            is frozen beside the ViT; see `eva_backbone.lora.add_adapters`.
        settings: Adapters, of a rank above 0.
        base: Name or path of the weights that the model began from.
        beside: Parameters of the ViT that are trained too, by name.

    Attributes:
        names: Names in the model's state dict that are saved.
        identity: Settings and SHA-256 of the base, the same wherever a run continues.

    Raises:
        ValueError: If there is no base, or adapters do not fit the model.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: LoraSettings,
        base: str | Path,
        *,
        beside: Sequence[str] = (),
    ) -> None:
        if not str(base):
            raise ValueError(f"lora.rank={settings.rank} needs an init_checkpoint to adapt, got ''")
        path = resolve_source(base)
        targets = add_adapters(model, settings, beside=beside)
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
        trained, every = sum(n for n, trains in sizes if trains), sum(n for n, _ in sizes)
        message = f"LoRA of rank {settings.rank}: {trained:,} of {every:,} parameters are trained"
        logger.info("%s", message, extra={"shown": True})  # on the terminal
        self._shared = _shared(model, to_eva_names(read_weights(path)))
        self.names = {name for name in model.state_dict() if _plain(name) not in self._shared}
        self.identity = {**vars(settings), "layers": [*settings.layers], "base": sha256_of(path)}
        self._config = {
            "peft_type": "LORA",
            BASE: _name_of_base(os.fspath(base), path),
            SHA256_OF_BASE: self.identity["base"],
            "r": settings.rank,
            "lora_alpha": settings.scale * settings.rank,
            "lora_dropout": settings.dropout,
            "target_modules": targets,
            "modules_to_save": self._modules_to_save(model),
            "inference_mode": True,
        }

    def _modules_to_save(self, model: nn.Module) -> list[str]:
        """Name the outermost modules of which everything is saved, as peft wraps them."""
        inside: tuple[str, ...] = ()
        tensors = list(model.state_dict())
        for module, _ in model.named_modules():
            names = {name for name in tensors if name.startswith(f"{module}.")}
            plain = names and not any(".lora_" in name for name in names)
            if plain and names <= self.names and not module.startswith(inside or "."):
                inside += (f"{module}.",)
        return [module.rstrip(".") for module in inside]

    def cut(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Keep `names` of a state dict of the model, or of an average of it with its `steps`."""
        names = {*self.names, *(f"module.{name}" for name in self.names), "steps"}
        return {name: value for name, value in state.items() if name in names}

    def write(
        self, state: Mapping[str, Tensor], folder: Path, notes: Mapping[str, str] | None = None
    ) -> None:
        """Write `names` of a state dict, each file completely or not at all.

        The config is the same in a whole run. `notes` are further metadata of the tensors' file.
        """
        own = {PREFIX + _plain(name): state[name] for name in sorted(self.names)}
        metadata = {**(notes or {}), "format": "pt", BASE_NAMES: json.dumps(self._shared)}
        write_text(folder / ADAPTER_CONFIG, json.dumps(self._config, indent=2) + "\n")
        write_tensors(own, folder / ADAPTER_WEIGHTS, metadata)

    def rename(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give tensors of a file that `write` wrote their names in the model."""
        return {name: tensors[PREFIX + _plain(name)] for name in self.names}


def complete(
    content: dict[str, Any], key: str, model: nn.Module, adapters: Adapters | None
) -> None:
    """Add what the weights of a checkpoint, under `key`, lack because it is frozen in the model.

    Raises:
        ValueError: If the checkpoint is of other adapters, another base, or none.
    """
    saved, here = content.get(LORA), adapters and adapters.identity
    if saved != here:
        raise ValueError(f"it was saved with lora={saved}, and this run has lora={here}")
    if adapters is not None and isinstance(content.get(key), dict):
        state = model.state_dict().items()
        content[key] = {n: v for n, v in state if n not in adapters.names} | content[key]


def _name_of_base(name: str, path: Path) -> str:
    """Return by what the base is found again: a released name, or a whole path of the user's."""
    released = any(name in (entry.name, entry.stem) for entry in list_official_files())
    own = Path(name).expanduser()  # a file, or the folder of a run
    is_own = path.is_relative_to(own) and not released
    return str(path.absolute()) if is_own else name


def _plain(name: str) -> str:
    """Return the name in files of what peft's layers wrap or hold."""
    return name.replace(".base_layer.", ".").replace(".default.", ".")


def _shared(model: nn.Module, base: Mapping[str, Tensor]) -> dict[str, str]:
    """Find what is frozen and the same in the base: name in the model -> in the base."""
    parameters = {_plain(name): parameter for name, parameter in model.named_parameters()}
    prefix, stored = find_trunk(parameters, name="the model"), find_trunk(base, name="the base")
    shared = {}
    for name, value in parameters.items():
        full_name = stored + name.removeprefix(prefix) if name.startswith(prefix) else name
        is_shared = full_name in base and not value.requires_grad
        if is_shared and torch.equal(base[full_name].to(value.dtype), value):
            shared[name] = full_name
    return shared
