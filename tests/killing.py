"""For programs of tests: the process kills itself inside a save (see tests/launcher.py)."""

import os
import signal

from eva_engine.checkpoints import run_checkpoint


def kill_in_save(step):
    """End this process by SIGKILL when the weights of a step are written and nothing else is."""
    save = run_checkpoint.save_weights

    def killing(state, file, *more):
        save(state, file, *more)
        if f"{step:08d}" in str(file):
            os.kill(os.getpid(), signal.SIGKILL)

    run_checkpoint.save_weights = killing
