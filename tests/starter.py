"""Starts Python programs from a process that has imported the frameworks: it forks for each.

Not a test. A program is what follows `python` on a command line: a script, `-m MODULE` or
`-c CODE`, with its arguments. Each is a process with a session, environment, folder and output of
its own; nothing of this toolkit is imported before it, but what mmcv imports in place of its
operators. The import of torch, DeepSpeed, detectron2 and OpenMMLab's packages, ten seconds and
more, is paid once. Nothing waits for a disk, which only a power cut would show.

    python starter.py SOCKET          # the server, until its standard input ends
    STARTER=SOCKET python starter.py - ARGUMENTS      # a stand-in for `python ARGUMENTS`
"""

import atexit
import contextlib
import importlib
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from pathlib import Path

FRAMEWORKS = (
    "av", "av.subtitles", "cv2", "deepspeed", "deepspeed.comm.mori",
    "deepspeed.module_inject.auto_ep_layer", "deepspeed.ops.op_builder.all_ops",
    "deepspeed.runtime.zero.muon.muon_optimizer", "detectron2.engine", "detectron2.evaluation",
    "detectron2.model_zoo", "detectron2.modeling", "hotcoco",
    "hydra.core.override_parser.overrides_parser", "jinja2", "matplotlib.backends.backend_agg",
    "matplotlib.pyplot", "mmdet.apis", "mmdet.engine", "mmengine.analysis", "mmengine.runner",
    "mmseg.apis", "mmseg.datasets", "mmseg.engine", "mmseg.evaluation", "open_clip", "pandas",
    "scipy.optimize", "scipy.signal", "sklearn.mixture", "supervision", "timm", "timm.optim",
    "torch._dynamo", "torch.distributed.run", "torch.utils.cpp_extension",
    "torch.utils.tensorboard", "torchvision", "torchvision.transforms.v2", "typeguard", "tyro",
    "wcwidth", "yapf.yapflib.yapf_api",
)  # fmt: skip
STREAMS = 3


def ask(place, request, streams):
    """Ask a server for a process; returns its pid, and the connection that will bring its code."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(place))
    socket.send_fds(connection, [f"{json.dumps(request)}\n".encode()], streams)
    return int(_line(connection)), connection


def _line(connection):
    text = b""
    while not text.endswith(b"\n"):
        got = connection.recv(1)
        if not got:
            raise EOFError("the starter has ended")
        text += got
    return text


class Started:
    """A started process, to be used like `subprocess.Popen`."""

    def __init__(self, arguments, streams, *, place, environment, folder):
        request = {"environment": dict(environment), "folder": str(folder)}
        request["arguments"] = [*map(str, arguments)]
        self.pid, self._connection = ask(place, request, [stream.fileno() for stream in streams])
        self.args, self.returncode = arguments, None
        weakref.finalize(self, self._connection.close)  # the server then ends what still runs

    def wait(self, timeout=None):
        if self.returncode is None:
            ready, _, _ = select.select([self._connection], [], [], timeout)
            if not ready:
                raise subprocess.TimeoutExpired(self.args, timeout)
            with self._connection:
                self.returncode = int(_line(self._connection))
        return self.returncode

    def poll(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def _become(request, streams):
    """In the child: run the program."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.fsync = lambda descriptor: None
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    if os.environ.get("RANKS") == "fork":
        from torch.multiprocessing import start_processes

        *before, _ = start_processes.__defaults__  # detectron2 leaves the last one: "spawn"
        start_processes.__defaults__ = (*before, "fork")
    if os.environ.get("CONFIGS") == "plain":
        from yapf.yapflib import yapf_api

        # the layout of configs, seconds for each file that mmengine writes
        yapf_api.FormatCode = lambda text, **style: (text, True)
    first, *rest = request["arguments"]
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [path for path in given if path and path not in sys.path]
    quick = os.environ.get("ENDING") == "quick"
    try:
        _run(first, rest)
    except SystemExit as stopped:
        if not quick or not isinstance(stopped.code, int | None):
            raise
        _end(stopped.code or 0)
    if quick:
        _end(0)


def _end(code):
    """End as the interpreter does, but for the memory that it gives back object by object."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code & 0xFF)


def _run(first, rest):
    import runpy

    if first == "-m":
        sys.path.insert(0, str(Path.cwd()))
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *rest[1:]]
        scope = {"__name__": "__main__", "__builtins__": __builtins__}
        exec(compile(rest[0], "<string>", "exec"), scope)
    else:
        sys.argv = [first, *rest]
        sys.path.insert(0, str(Path(first).resolve().parent))
        runpy.run_path(first, run_name="__main__")


def _serve(place):
    import gc

    for name in FRAMEWORKS:
        with contextlib.suppress(ImportError), contextlib.redirect_stdout(io.StringIO()):
            importlib.import_module(name)  # OpenMMLab's print what they do without
    importlib.import_module("PIL.Image").init()
    cpu = importlib.import_module("torch").cpu
    known = {name: has for name, has in cpu.get_capabilities().items() if "bf16" not in name}
    cpu.get_capabilities = lambda: known  # precision "auto" is fp32, as in `conftest.py`
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{place}.part")
    listener.listen(16)
    Path(f"{place}.part").rename(place)  # whoever waits for this file may connect
    running = {}
    while True:
        watched = [listener, sys.stdin, *running.values()]
        ready, _, _ = select.select(watched, [], [], 0.01 if running else None)
        if sys.stdin in ready:
            break
        for pid, connection in list(running.items()):
            if connection in ready:  # whoever asked has gone
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
        while running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            with running.pop(pid) as connection, contextlib.suppress(OSError):
                connection.send(b"%d\n" % os.waitstatus_to_exitcode(status))
        if listener in ready:
            connection, _ = listener.accept()
            text, streams, _, _ = socket.recv_fds(connection, 1 << 20, STREAMS)
            while not text.endswith(b"\n"):
                text += connection.recv(1 << 20)
            request = json.loads(text)
            pid = os.fork()
            if not pid:
                for other in (listener, connection, *running.values()):
                    other.close()
                return lambda: _become(request, streams)
            for stream in streams:
                os.close(stream)
            running[pid] = connection
            connection.send(b"%d\n" % pid)
    for pid in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    return lambda: None


def _stand_in(arguments):
    request = {
        "arguments": arguments[arguments[0] == "-u" :],  # of torchrun
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
    }
    pid, connection = ask(os.environ["STARTER"], request, [0, 1, 2])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    code = int(_line(connection))
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    if sys.argv[1] == "-":
        sys.exit(_stand_in(sys.argv[2:]))
    _serve(sys.argv[1])()
