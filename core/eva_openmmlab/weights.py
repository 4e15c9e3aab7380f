"""Weights beside mmengine's metadata: read safely, loaded completely or not at all."""

import argparse
import importlib
import os
import pickle
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.fileio import PickleHandler, YamlHandler, register_handler
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.runner import CheckpointLoader
from torch import nn
from yaml import SafeLoader

from eva_backbone import LoadReport, load_pretrained
from eva_backbone.checkpoints._key_maps import CONTAINERS
from eva_backbone.checkpoints.reading import read_torch_file, read_weights, require_whole
from eva_backbone.checkpoints.registry import resolve_source

CONTINUED = "continued:"  # in front of a path


def _method_of_buffer(owner: type, name: str) -> object:
    """Replace `getattr`, by which a buffer of mmengine names its own statistics."""
    if owner is not HistoryBuffer or name not in ("max", "mean", "current", "min"):
        raise pickle.UnpicklingError(f"GLOBAL getattr of {owner}, {name}")
    return getattr(owner, name)


_NUMPY = importlib.import_module("numpy._core.multiarray")
# What is packed beside weights: mmengine's logged numbers, the arguments of official programs.
METADATA = [
    argparse.Namespace,
    (_method_of_buffer, "builtins.getattr"),
    HistoryBuffer,
    np.ndarray,
    np.dtype,
    *(
        (getattr(_NUMPY, name), f"numpy.{package}.multiarray.{name}")
        for package in ("core", "_core")  # before numpy 2, and since
        for name in ("_reconstruct", "scalar")
    ),
    *(np.dtypes.Float32DType, np.dtypes.Float64DType, np.dtypes.Int64DType),
]


@register_handler(["pkl", "pickle"])
class NoPickles(PickleHandler):
    """Writes pickles and reads none, which a config can name as weights of classes, for example."""

    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        """Refuse a pickle, with a ValueError."""
        raise ValueError("a pickle would execute what is in it: save the values as JSON or .npy")


@register_handler(["yaml", "yml"])
class SafeYaml(YamlHandler):
    """Reads YAML of plain values alone."""

    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        """Read a file, or raise `yaml.YAMLError`."""
        return super().load_from_fileobj(file, **{**kwargs, "Loader": SafeLoader})


@singledispatch
def load_start(
    model: nn.Module, source: str | os.PathLike[str], *, complete: bool = False
) -> LoadReport:
    """Load a model; see `load_pretrained`.

    A project registers a function for its framework's base class, for a backbone or a complete
    segmentor or detector. Unless `complete`, for evaluation, heads may be missing in a file, and a
    classifier of other classes starts from scratch, which the report says.
    """
    return load_pretrained(model, source, complete=complete)


@CheckpointLoader.register_scheme(prefixes=("http://", "https://"), force=True)
def load_from_http_safely(filename: str, map_location: Any = None, model_dir: Any = None) -> Any:
    """Refuse weights at an address: mmengine would download them and run what they hold."""
    raise ValueError(f"{filename} is not a local file: download it, and name the file")


@CheckpointLoader.register_scheme(prefixes="", force=True)
def load_from_local_safely(filename: str, map_location: Any = None) -> Any:
    """Read a checkpoint for mmengine to the CPU, whose own loader unpickles anything.

    `init_model`, `init_detector` and the frameworks' own `tools/test.py` come here, with a file,
    the name of an official one, or `hf://ORG/REPOSITORY/FILE@REVISION`.
    """
    path = resolve_source(filename)
    if path.suffix == ".safetensors":
        return {"state_dict": read_weights(path), "meta": {}}
    content = read_torch_file(path, allowed=METADATA)
    require_whole(content, path)
    if isinstance(content, dict) and "state_dict" not in content:
        held = (content[name] for name in CONTAINERS if isinstance(content.get(name), dict))
        return {"state_dict": next(held, content), "meta": {}}  # as mmengine's hooks want it
    return content


@CheckpointLoader.register_scheme(prefixes=CONTINUED, force=True)
def load_continued(filename: str, map_location: Any = None) -> Any:
    """Read a checkpoint that a run continues from, which may lack what is frozen."""
    return read_torch_file(Path(filename.removeprefix(CONTINUED)), allowed=METADATA)
