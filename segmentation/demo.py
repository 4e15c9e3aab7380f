"""Segment images: `python segmentation/demo.py --help`."""

from eva_segmentation.inference.demo import main

if __name__ == "__main__":
    main()
