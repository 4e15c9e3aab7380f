"""Kills random processes of a run of three under torchrun, for a while, and compares the ends.

    python tests/attacks/restarts.py classification --minutes 30

torchrun starts all three again after each kill. What must hold: the run ends, each saved tensor
equals that of a run which nobody disturbed, and memory and open files of torchrun and of the
processes do not grow from one start to the next. Exit code 1 if not.
"""

import argparse
import contextlib
import functools
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from kills import ROOT, TRAINERS, Trainer, same_weights


def _start(trainer: Trainer, folder: Path, log: Any) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    words += ["--max-restarts", "1000", "-m", "eva_command", trainer.name, "train"]
    words += trainer.arguments(folder)
    words += ["dataloader.train.total_batch_size=3"] if trainer.name == "detection" else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen(words, stdout=log, stderr=log, env=environment, cwd=ROOT)


def _ranks(launcher: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return launcher.children()
    return []


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("trainer", choices=TRAINERS)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--length", type=int, default=10, help="of a run, which kills.py's has 1")
    parser.add_argument("--pause", type=float, nargs=2, default=(5, 60), help="seconds, at random")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    chance, kills, ends, wrong = random.Random(options.seed), list[int](), 0, list[str]()
    pause = functools.partial(chance.uniform, *options.pause)
    sizes = list[list[int]]()  # MiB and open files of torchrun, and with its processes
    with tempfile.TemporaryDirectory() as place, Path(place, "log.txt").open("wb") as log:
        data = Path(place, "data")
        kind = TRAINERS[options.trainer]
        make = ["data", "make-demo", "--output", str(data / "digit_scenes"), "--formats"]
        make += [kind.formats, "--train", "48", "--val", "6", "--workers", "1"]
        subprocess.run([sys.executable, "-m", "eva_command", *make], check=True)
        os.environ |= {"DETECTRON2_DATASETS": str(data), "DS_ACCELERATOR": "cpu"}
        trainer = Trainer(options.trainer, data, options.length)
        if _start(trainer, Path(place, "undisturbed"), log).wait():
            raise SystemExit(Path(place, "log.txt").read_text()[-3000:])
        end = time.monotonic() + 60 * options.minutes
        while time.monotonic() < end:
            folder = Path(place, f"run_{ends}")
            kills.append(0)
            run = _start(trainer, folder, log)
            launcher, due = psutil.Process(run.pid), time.monotonic() + pause()
            while run.poll() is None:
                time.sleep(0.05)
                ranks = _ranks(launcher)
                if not due <= time.monotonic() < end or len(ranks) != 3:
                    continue
                with contextlib.suppress(psutil.Error):
                    memory = [one.memory_info().rss // 2**20 for one in (launcher, *ranks)]
                    files = [one.num_fds() for one in (launcher, *ranks)]
                    sizes.append([memory[0], files[0], sum(memory), sum(files)])
                    chance.choice(ranks).kill()
                    kills[-1] += 1
                due = time.monotonic() + pause()
            if run.returncode:
                wrong.append(
                    f"exit code {run.returncode}: {Path(place, 'log.txt').read_text()[-2000:]}"
                )
                break
            wrong += same_weights(trainer, Path(place, "undisturbed"), folder)
            ends += 1
            sys.stderr.write(f"{kills[-1]} kills, {wrong}\n")
    first, second = sizes[: len(sizes) // 2], sizes[len(sizes) // 2 :]
    for title, part in (("first half", first), ("second half", second)):
        most = [*map(max, zip(*part, strict=True))]
        sys.stdout.write(f"{title}: most memory (MiB) and files of torchrun, and of all: {most}\n")
    sys.stdout.write(
        f"{sum(kills)} kills {kills}, {ends} ends, {len(wrong)} differences {wrong[:5]}\n"
    )
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
