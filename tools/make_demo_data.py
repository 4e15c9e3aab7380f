"""Make the demo data: `python tools/make_demo_data.py --help`."""

from eva_demo.command import main

if __name__ == "__main__":
    raise SystemExit(main())
