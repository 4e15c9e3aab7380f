"""Detect objects with mmdetection: `python mmdetection/demo.py --help`."""

from eva_mmdetection.inference.demo import main

if __name__ == "__main__":
    main()
