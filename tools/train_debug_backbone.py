"""Pre-train the debug backbone: `python tools/train_debug_backbone.py --help`."""

from eva_demo.debug_backbone import main

if __name__ == "__main__":
    raise SystemExit(main())
