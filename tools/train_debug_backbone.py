"""Pre-train the debug backbone: `python tools/train_debug_backbone.py --help`."""

from eva_runs.commands import run_and_exit

if __name__ == "__main__":
    run_and_exit("eva_demo.debug_backbone:main")
