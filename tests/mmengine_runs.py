"""Programs on mmengine as their scripts run them, in the process of the tests."""

import json
import signal
import sys
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.visualization import Visualizer

from eva_data.interruption import SIGNALS


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
        program: Module with `main`.
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
            program.main([str(argument) for argument in arguments])
        finally:
            forget(scope)
            torch.set_float32_matmul_precision(precision)
            for number, handler in handlers.items():
                signal.signal(number, handler)


def scalars(folder):
    """Read what the only run of a work folder logged."""
    (file,) = folder.glob("*/vis_data/scalars.json")
    return [json.loads(line) for line in file.read_text().splitlines()]
