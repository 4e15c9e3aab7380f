"""DeepSpeed's files of a checkpoint: written whole, read safely, cut for other processes.

DeepSpeed's own form for another number of processes, `ds_to_universal`, unpickles whatever a file
holds, and writes the optimizer's state a second time, a folder for each parameter.
"""

import copy
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from deepspeed.checkpoint.constants import (
    BASE_OPTIMIZER_STATE,
    LOSS_SCALER,
    OPTIMIZER_STATE_DICT,
    PARAM_SLICE_MAPPINGS,
    SINGLE_PARTITION_OF_FP32_GROUPS,
)
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address
from torch import Tensor

from eva_backbone.checkpoints.reading import read_torch_file
from eva_engine import distributed
from eva_engine.checkpoints.files import FolderStore
from eva_engine.steps.engine import TrainingEngine

_ALLOWED = [LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address]  # in DeepSpeed's files
_MODEL = "mp_rank_00_model_states.pt"
_WEIGHTS = "weights"  # beside the names of the optimizer's moments

State = dict[str, Any]  # flat tensors, and numbers such as a count of steps


class SafeCheckpointEngine(TorchCheckpointEngine):  # type: ignore[misc]
    """DeepSpeed's reader and writer: it runs no code of a file, and writes in the background."""

    def __init__(self, files: FolderStore | None = None) -> None:
        super().__init__()
        self._files = files

    def save(self, state_dict: Any, path: str) -> None:
        """Copy a state and begin to write it."""
        assert self._files is not None
        self._files.save_state(Path(path), state_dict)

    def load(self, path: str, map_location: Any = None) -> Any:
        """Read a file on the CPU; DeepSpeed moves tensors to their device."""
        return read_torch_file(path, allowed=_ALLOWED)


class OtherProcesses(SafeCheckpointEngine):
    """Reads the files of other processes, or of another ZeRO stage, as if this one had saved them.

    Each parameter's float32 weights and moments are put together and cut as this engine keeps them.

    Args:
        folder: DeepSpeed's folder of the checkpoint.
        engine: The engine that continues.
        parts: Processes that saved a part of the optimizer's state; 0 without ZeRO.
    """

    def __init__(self, folder: Path, engine: TrainingEngine, *, parts: int) -> None:
        super().__init__()
        self._engine = engine
        self._model = super().load(str(folder / _MODEL))
        name = (
            f"{'bf16_' * (engine.precision == 'bf16')}zero_pp_rank_{{}}_mp_rank_00_optim_states.pt"
        )
        files = [folder / name.format(number) for number in range(parts)]
        saved = [read_torch_file(file, allowed=_ALLOWED, mapped=True) for file in files]
        self._zero = [state[OPTIMIZER_STATE_DICT] for state in saved]
        optimizer = self._zero[0][BASE_OPTIMIZER_STATE] if parts else self._model["optimizer"]
        self._groups = {group["name"]: group for group in optimizer["param_groups"]}
        self._pieces = _pieces_of_zero(self._zero) if parts else self._pieces_of_one()

    def load(self, path: str, map_location: Any = None) -> Any:
        """Make the content of a file of DeepSpeed's."""
        engine = self._engine
        if Path(path).name == _MODEL:
            own = None if engine.zero_stage else self._optimizer(self._whole_states())
            return self._model | {"dp_world_size": distributed.world_size(), "optimizer": own}
        states = self._own_states()
        weights = [state.pop(_WEIGHTS) for state in states]
        scaler = {name: self._zero[0][name] for name in (LOSS_SCALER,) if self._zero}
        return {
            OPTIMIZER_STATE_DICT: engine.optimizer.state_dict()
            | scaler
            | {
                BASE_OPTIMIZER_STATE: self._optimizer(states),
                SINGLE_PARTITION_OF_FP32_GROUPS: weights,
            }
        }

    def _pieces_of_one(self) -> dict[str, list[State]]:
        state, weights = self._model["optimizer"]["state"], self._model["module"]
        pieces = {}
        for group, names in self._engine.names.items():
            for name, number in zip(names, self._groups[group]["params"], strict=False):
                moments = _narrowed(state.get(number, {}), slice(None))
                pieces[name] = [{_WEIGHTS: weights[name].flatten(), **moments}]
        return pieces

    def _optimizer(self, states: Sequence[State]) -> dict[str, Any]:
        """Write the state of each of this process's tensors as PyTorch's optimizers do."""
        optimizer = self._engine.optimizer
        own = (optimizer.optimizer if self._engine.zero_stage else optimizer).state_dict()
        groups = [self._groups[g["name"]] | {"params": g["params"]} for g in own["param_groups"]]
        return {"state": dict(enumerate(states)), "param_groups": groups}

    def _begun(self, name: str) -> tuple[State, list[str]]:
        """Copy the numbers of a parameter's state, and name its flat tensors."""
        state = self._pieces[name][0]
        flat = _flat_keys(state)
        return copy.deepcopy({key: state[key] for key in state.keys() - flat}), sorted(flat)

    def _whole(self, name: str, key: str) -> Tensor:
        return torch.cat([piece[key] for piece in self._pieces[name]])

    def _whole_states(self) -> list[State]:
        states = []
        for name in itertools.chain.from_iterable(self._engine.names.values()):
            state, keys = self._begun(name)
            for key in keys:
                whole = self._engine.own_part(name, self._whole(name, key))
                state[key] = whole.view(self._engine.parameters[name].shape)
            del state[_WEIGHTS]  # those of the module
            states.append(state)
        return states

    def _own_states(self) -> list[State]:
        optimizer, states = self._engine.optimizer, []
        own = zip(
            self._engine.names.values(),
            optimizer.single_partition_of_fp32_groups,
            optimizer.state_dict()[PARAM_SLICE_MAPPINGS],
            strict=True,
        )
        for names, flat, places in own:
            state, keys = self._begun(names[0])
            for key in keys:
                state[key] = torch.zeros(flat.shape)  # which fill a group up
                for name, address in places.items():
                    part = self._engine.own_part(name, self._whole(name, key))
                    state[key][address.start : address.start + address.numel] = part
            states.append(state)
        return states


def _pieces_of_zero(parts: Sequence[Mapping[str, Any]]) -> dict[str, list[State]]:
    """Cut the state of all processes into that of parameters, in their order."""
    pieces: dict[str, list[State]] = {}
    for part in parts:
        states = part[BASE_OPTIMIZER_STATE]["state"]
        for number, places in enumerate(part[PARAM_SLICE_MAPPINGS]):
            flat = part[SINGLE_PARTITION_OF_FP32_GROUPS][number]
            state = {_WEIGHTS: flat, **states.get(number, {})}
            for name, address in places.items():
                where = slice(address.start, address.start + address.numel)
                pieces.setdefault(name, []).append(_narrowed(state, where))
    return pieces


def _narrowed(state: State, where: slice) -> State:
    flat = _flat_keys(state)
    return {key: state[key].flatten()[where] if key in flat else state[key] for key in state}


def _flat_keys(state: State) -> set[str]:
    return {key for key, value in state.items() if torch.is_tensor(value) and value.dim()}
