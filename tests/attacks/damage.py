"""Gives the commands damaged and malicious files, and looks at how they end.

    python tests/attacks/damage.py detection segmentation pretrain classification video clip weights

For a trainer, a short run is made and continued once for each kind of damage to each file of its
newest checkpoint; `weights` are files for `load_pretrained` and `load_vit`. What must hold in every
case: no code of a file runs, nothing hangs, no traceback reaches the terminal, and what is damaged
is refused, or the end has the same weights as undisturbed (an older complete checkpoint was
continued from, or the damage lay between the data). Prints a line of the table in
docs/reliability.md for each; exit code 1 if anything does not hold. `--show` prints the last line
of every end.
"""

import argparse
import io
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from kills import ROOT, TRAINERS, Trainer, same_weights

_LIMIT = 120  # seconds for one command
_TENSORS = (".pth", ".pt", ".safetensors")
Damage = Callable[[Path], None]


class Malice:
    """Unpickled, it leaves a file behind; a reader that runs code of a file cannot hide it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def _bytes(change: Callable[[bytearray], bytes]) -> Damage:
    def damage(file: Path) -> None:
        file.write_bytes(change(bytearray(file.read_bytes())))

    return damage


def _flip(place: float) -> Damage:
    def change(content: bytearray) -> bytes:
        content[int(place * (len(content) - 1))] ^= 0x40
        return bytes(content)

    return _bytes(change)


def _cut(share: float) -> Damage:
    return _bytes(lambda content: bytes(content[: int(share * len(content))]))


def _replace(make: Callable[[Path], object]) -> Damage:
    def damage(file: Path) -> None:
        file.unlink()
        make(file)

    return damage


def _zip_bomb(file: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/version", "3\n")
        with archive.open("archive/data/0", "w", force_zip64=True) as member:
            for _ in range(2000):
                member.write(bytes(1 << 20))


def kinds_of_damage(marker: Path, chance: random.Random) -> Iterator[tuple[str, Damage]]:
    """Yield name and function of each damage to a file of tensors."""
    import torch

    malice = Malice(marker)
    yield "empty", _bytes(lambda content: b"")
    yield "one byte", _bytes(lambda content: bytes(content[:1]))
    yield "last byte missing", _bytes(lambda content: bytes(content[:-1]))
    yield "one byte more", _bytes(lambda content: bytes(content) + b"x")
    for cut in (0.1, 0.5, 0.9, 0.99):
        yield f"cut at {cut}", _cut(cut)
    for _ in range(12):
        place = chance.random()
        yield f"a bit flipped at {place:.3f}", _flip(place)
    yield "zeros", _bytes(lambda content: bytes(len(content)))
    yield (
        "zeros in the middle",
        _bytes(lambda content: bytes(content[:1000]) + bytes(1000) + bytes(content[2000:])),
    )
    yield (
        "a page of HTML",
        _replace(lambda file: file.write_text("<!DOCTYPE html><html>404</html>")),
    )
    yield (
        "a pointer of git-lfs",
        _replace(
            lambda file: file.write_text(
                "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
            )
        ),
    )
    yield "noise", _replace(lambda file: file.write_bytes(chance.randbytes(5000)))
    for name, content in (
        ("a list", [1, 2]),
        ("text", "text"),
        ("an empty dict", {}),
        ("other names", {"model": {"a": torch.zeros(3)}, "state_dict": {"a": torch.zeros(3)}}),
        ("no tensors", {"model": {"a": "b"}, "state_dict": {"a": "b"}}),
        ("numbers for names", {"model": {1: torch.zeros(3)}, "state_dict": {1: torch.zeros(3)}}),
        ("malice in a pickle of torch", {"model": malice, "state_dict": malice}),
    ):
        yield name, _replace(partial(torch.save, content))
    yield (
        "malice in torch's old format",
        _replace(lambda file: torch.save(malice, file, _use_new_zipfile_serialization=False)),
    )
    yield "malice in a plain pickle", _replace(lambda file: file.write_bytes(pickle.dumps(malice)))
    yield "malice beside the weights", _added(lambda saved: saved.update(more=malice))
    yield "code as a config", _added(lambda saved: _set_config(saved, marker))
    yield "half the model", _added(_halve)
    yield "other shapes", _added(_reshape)
    yield "NaN in the weights", _added(_poison)
    yield "a bomb of zeros", _replace(_zip_bomb)
    yield "a pipe", _replace(os.mkfifo)
    yield "a folder", _replace(Path.mkdir)
    yield "a link to itself", _replace(lambda file: file.symlink_to(file.name))
    yield "an endless device", _replace(lambda file: file.symlink_to("/dev/zero"))
    yield "gone", _replace(lambda file: None)


def _added(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """Change what a file of torch holds; other files become one with the change alone."""

    def damage(file: Path) -> None:
        import torch

        saved: dict[str, Any] = {}
        if file.suffix != ".safetensors":
            saved = torch.load(io.BytesIO(file.read_bytes()), weights_only=False)
        change(saved)
        torch.save(saved, file)

    return damage


def _state(saved: dict[str, Any]) -> dict[str, Any]:
    for name in ("model", "state_dict", "module"):
        if name in saved:
            return saved[name]
    return saved


def _set_config(saved: dict[str, Any], marker: Path) -> None:
    saved.setdefault("meta", {})
    if isinstance(saved["meta"], dict):
        saved["meta"]["config"] = saved["meta"]["cfg"] = f"import os\nos.system('touch {marker}')\n"


def _halve(saved: dict[str, Any]) -> None:
    state = _state(saved)
    for name in list(state)[::2]:
        del state[name]


def _reshape(saved: dict[str, Any]) -> None:
    state = _state(saved)
    for name, value in list(state.items()):
        if getattr(value, "ndim", 0) == 2:
            state[name] = value[:, :-1].clone()


def _poison(saved: dict[str, Any]) -> None:
    for value in _state(saved).values():
        if hasattr(value, "is_floating_point") and value.is_floating_point() and value.numel():
            value.view(-1)[0] = float("nan")


class Case:
    """One command on damaged input.

    Attributes:
        name: Name of the damage.
        folder: What the case may use; it is removed afterwards.
        run: Carries out the command in it.
    """

    def __init__(self, name: str, folder: Path, run: Callable[[Path], None]) -> None:
        self.name, self.folder, self.run = name, folder, run


class AcceptedError(Exception):
    """Damaged data were taken for good ones."""


def end_of(case: Case, log: Path) -> tuple[str, str]:
    """Carry a case out in a fork; how it ended, and the last line that it wrote."""
    pid = os.fork()
    if not pid:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code: Any = 1
        try:
            case.run(case.folder)
            code = 0
        except AcceptedError as error:
            sys.stderr.write(f"{error}\n")
            code = 3
        except SystemExit as end:
            code = end.code if isinstance(end.code, int | None) else 1
            if end.code not in (0, 1, 2, None):
                sys.stderr.write(f"{end.code}\n")
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code or 0)  # the fork of this program, which has nothing to tidy up
    begin = time.monotonic()
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() - begin > _LIMIT:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            remove(case.folder)
            return "hung", ""
        time.sleep(0.01)
    remove(case.folder)
    text = log.read_text(errors="replace")
    last = (text.strip().splitlines() or [""])[-1]
    if "Traceback (most recent" in text:
        return "raw traceback", last
    code = os.waitstatus_to_exitcode(status)
    how = {0: "went on", 1: "refused", 2: "refused", 3: "accepted"}.get(code, f"exit code {code}")
    return how, last


def remove(folder: Path) -> None:
    """Remove what a case has left, whatever kind of file it is."""
    subprocess.run(["rm", "-rf", "--", str(folder)], check=True)


def trainer_cases(trainer: Trainer, work: Path, marker: Path) -> Iterator[Case]:
    """Damage each file of tensors of the newest checkpoint of a run, and continue it."""
    undisturbed = work / "undisturbed"

    def checkpoint_files(folder: Path) -> list[Path]:
        if (folder / "checkpoints").is_dir():
            newest = sorted((folder / "checkpoints").glob("step_*"))[-1]
            return [file for file in sorted(newest.rglob("*")) if file.suffix in _TENSORS]
        tag = (folder / "last_checkpoint").read_text(encoding="utf-8").strip()
        return [folder / Path(tag).name]

    for name, damage in kinds_of_damage(marker, random.Random(0)):
        for place, file in enumerate(checkpoint_files(undisturbed)):

            def run(folder: Path, damage: Damage = damage, place: int = place) -> None:
                shutil.copytree(undisturbed, folder, symlinks=True)
                damage(checkpoint_files(folder)[place])
                sys.argv = ["train.py", *trainer.arguments(folder)]
                trainer.main()
                if differences := same_weights(trainer, undisturbed, folder):
                    raise AcceptedError(f"it went on to other weights: {differences[:3]}")

            yield Case(f"{name}, {file.name}", work / "case", run)


def weights_cases(work: Path, marker: Path) -> Iterator[Case]:
    """Give `load_pretrained` and `load_vit` damaged files."""
    import torch
    from safetensors.torch import load_file

    from eva_backbone import eva_debug, load_pretrained
    from eva_backbone.checkpoints.from_weights import load_vit

    def load_into_model(file: Path) -> torch.nn.Module:
        model = eva_debug()
        load_pretrained(model, file)
        return model

    def load_as_described(file: Path) -> torch.nn.Module:
        return load_vit(file)

    bundled = ROOT / "eva_backbone/weights/eva_debug.safetensors"
    (work / "good").mkdir()
    shutil.copy(bundled, work / "good/weights.safetensors")
    torch.save({"model": load_file(bundled)}, work / "good/weights.pth")
    for good in sorted((work / "good").iterdir()):
        for load in (load_into_model, load_as_described):
            wanted = load(good).state_dict()
            for name, damage in kinds_of_damage(marker, random.Random(1)):
                if good.suffix == ".safetensors" and name.startswith("a bit flipped"):
                    continue  # the format has no checksum, and no SHA-256 of this file is recorded

                def run(
                    folder: Path,
                    damage: Damage = damage,
                    good: Path = good,
                    load: Callable[[Path], Any] = load,
                    wanted: dict[str, Any] = wanted,
                ) -> None:
                    folder.mkdir()
                    file = folder / good.name
                    shutil.copy(good, file)
                    damage(file)
                    try:
                        got = load(file).state_dict()
                    except (ValueError, OSError) as error:  # as our commands do
                        sys.exit(str(error))
                    if not all(torch.equal(wanted[key], got[key]) for key in wanted):
                        raise AcceptedError("other weights were loaded")

                yield Case(f"{name}, {good.name}, {load.__name__}", work / "case", run)


def attack(cases: Iterator[Case], work: Path, marker: Path, *, show: bool) -> dict[str, int]:
    """Carry out all cases; gives the row of the table."""
    good = ("refused", "went on")
    bad = ("executed", "hung", "raw traceback", "accepted", "other")
    row = dict.fromkeys(("cases", *good, *bad), 0)
    for case in cases:
        how, last = end_of(case, work / "log.txt")
        row["cases"] += 1
        row[how if how in row else "other"] += 1
        executed = marker.exists()
        row["executed"] += executed
        marker.unlink(missing_ok=True)
        if show or how not in good or executed:
            note = " EXECUTED" if executed else ""
            sys.stderr.write(f"{case.name}: {how}{note}: {last[:200]}\n")
    return row


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="+", choices=[*TRAINERS, "weights"])
    parser.add_argument("--show", action="store_true", help="print how every case ends")
    args = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "DS_ACCELERATOR"):
        usual = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "DS_ACCELERATOR": "cpu"}
        os.environ.setdefault(name, usual[name])
    failed = False
    for target in args.targets:
        with tempfile.TemporaryDirectory(prefix="eva_damage_") as temporary:
            work = Path(temporary)
            marker = work / "executed"
            if target == "weights":
                cases = weights_cases(work, marker)
            else:
                cases = trainer_cases(_prepared(target, work), work, marker)
            row = attack(cases, work, marker, show=args.show)
        cells = " | ".join(str(value) for value in row.values())
        sys.stdout.write(f"| input | {' | '.join(row)} |\n| {target} | {cells} |\n")
        failed = failed or row["cases"] != row["refused"] + row["went on"] or row["executed"] > 0
    sys.exit(failed)


def _prepared(target: str, work: Path) -> Trainer:
    """A trainer and its complete short run in `work/undisturbed`."""
    sizes = ("--train", "48", "--val", "6", "--workers", "1", "--formats", TRAINERS[target].formats)
    make = (sys.executable, str(ROOT / "tools/make_demo_data.py"), "--output")
    subprocess.run([*make, str(work / "data/digit_scenes"), *sizes], check=True)
    os.environ["DETECTRON2_DATASETS"] = str(work / "data")
    trainer = TRAINERS[target](work / "data")

    def run(folder: Path) -> None:
        del folder
        sys.argv = ["train.py", *trainer.arguments(work / "undisturbed")]
        trainer.main()

    how, last = end_of(Case("undisturbed", work / "case", run), work / "log.txt")
    if how != "went on":
        raise SystemExit(f"the undisturbed run of {target}: {how}: {last}")
    return trainer


if __name__ == "__main__":
    main()
