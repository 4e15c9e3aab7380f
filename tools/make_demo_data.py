"""Make the demo data: `python tools/make_demo_data.py --help`."""

from eva_runs.commands import run_and_exit

if __name__ == "__main__":
    run_and_exit("eva_demo.command:main")
