"""Programs on mmengine as their scripts run them, in the process of the tests."""

import contextlib
import importlib.util
import io
import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.visualization import Visualizer

from eva_runs.interruption import SIGNALS

OPERATORS = Path(__file__).parents[1] / "third_party" / "mmcv_operators" / "_ext.py"


def environment(folder):
    """Return the environment of a program in what `make setup` installs.

    Where mmcv is not compiled and eva-mmcv-operators not installed, a copy of mmcv, by links, has
    its file.

    Args:
        folder: Where that copy is made.
    """
    (installed,) = importlib.util.find_spec("mmcv").submodule_search_locations
    if any(Path(installed).glob("_ext.*")):
        return dict(os.environ)
    copy = folder / "mmcv"
    if not copy.exists():
        copy.mkdir(parents=True)
        for entry in [*Path(installed).iterdir(), OPERATORS]:
            if entry.name != "__pycache__":
                (copy / entry.name).symlink_to(entry)
    path = os.pathsep.join([str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    return os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)}


def forget(scope):
    """Let the next run of the same second take a name that mmengine gives only once.

    Args:
        scope: Default scope of the framework, as before every test.
    """
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()
    visualizers = [kind for kind in Visualizer.__subclasses__() if "_instance_dict" in vars(kind)]
    # `Visualizer` lists those of its children too, and the last one is the current one
    for kind in (DefaultScope, MMLogger, MessageHub, Visualizer, *visualizers):
        kind._instance_dict.clear()
    init_default_scope(scope)


def launch(scope, program, *arguments):
    """Run a program, and leave the process as it was.

    Args:
        scope: Default scope of its framework.
        program: Function, or module with `main`.
        *arguments: Arguments of the command line.
    """
    precision = torch.get_float32_matmul_precision()
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    with pytest.MonkeyPatch.context() as patch:
        # the layout of saved configs, and a look through all objects for each data set of a
        # few pictures, would take most of the time
        patch.setattr("mmengine.dataset.base_dataset.gc", SimpleNamespace(collect=lambda: 0))
        patch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, **style: (text, True))
        patch.setattr(torch.distributed, "is_initialized", lambda: False)
        patch.setenv("LOCAL_RANK", "0")
        patch.setattr(sys, "excepthook", sys.excepthook)
        try:
            getattr(program, "main", program)([str(argument) for argument in arguments])
        finally:
            forget(scope)
            torch.set_float32_matmul_precision(precision)
            for number, handler in handlers.items():
                signal.signal(number, handler)


def fails(scope, program, *arguments, code=1):
    """Run a program that refuses or fails, and return its last line.

    Args:
        scope: Default scope of its framework.
        program: Function, or module with `main`.
        *arguments: Arguments of the command line.
        code: Exit code.
    """
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown), pytest.raises(SystemExit) as end:
        launch(scope, program, *arguments)
    assert end.value.code == code, shown.getvalue()
    assert "Traceback" not in shown.getvalue()
    return shown.getvalue().splitlines()[-1]


def scalars(folder):
    """Read what the only run of a work folder logged."""
    (file,) = folder.glob("*/vis_data/scalars.json")
    return [json.loads(line) for line in file.read_text().splitlines()]
