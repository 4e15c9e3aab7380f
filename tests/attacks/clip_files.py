"""Gives CLIP's readers damaged and malicious files, and looks at how they end.

    python tests/attacks/clip_files.py weights texts shards

`weights` are files for `load_eva_clip`, `texts` those that a text tower begins with, TorchScript
among them, `shards` tar files of pairs of which each pair is read. What must hold is what
`damage.py` says; in addition no picture from outside of a shard is given out, and no case takes
more than 2 GiB. Prints a line of the table in docs/reliability.md for each.
"""

import argparse
import io
import os
import pickle
import random
import resource
import struct
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from damage import AcceptedError, Case, Damage, Malice, attack, kinds_of_damage
from PIL import Image
from safetensors.torch import load_file, save_file

from eva_contrastive.model.eva_clip import EvaClip, build_eva_clip

_MEMORY = 2 << 30  # of a case, beside what this program has
_TEXT = {"vocab_size": 64, "context_length": 16}
_SECRET = (10, 200, 30)  # colour of a picture that lies outside

Weights = dict[str, torch.Tensor]


def small_clip() -> EvaClip:
    """A model of a million parameters."""
    torch.manual_seed(0)
    return build_eva_clip("eva_debug", "debug", embed_dim=16, img_size=32, text_overrides=_TEXT)


def changes_of_weights() -> Iterator[tuple[str, Callable[[Weights], object]]]:
    """Yield name and function of each change to a complete CLIP's weights that nothing may take."""

    def drop(prefix: str) -> Callable[[Weights], object]:
        return lambda state: [state.pop(name) for name in list(state) if name.startswith(prefix)]

    def put(name: str, value: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Weights], None]:
        return lambda state: state.update({name: value(state[name])})

    def every(value: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Weights], None]:
        return lambda state: state.update({name: value(old) for name, old in state.items()})

    yield "no text tower", drop("text.")
    yield "no vision tower", drop("visual.")
    yield "no vision head", drop("visual.head")
    yield "no block of the text tower", drop("text.transformer.")
    yield "a block of the text tower missing", drop("text.transformer.resblocks.0.")
    yield "a position less", put("text.positional_embedding", lambda x: x[:-1, :-1])
    yield "a narrower text tower", put("text.token_embedding.weight", lambda x: x[:, :32].clone())
    yield "features of two sizes", put("text.text_projection", lambda x: x[:, :8].clone())
    yield "a projection without columns", put("text.text_projection", lambda x: x[:, :0].clone())
    yield "words without dimensions", put("text.token_embedding.weight", lambda x: x[0, 0])
    yield "two logit scales", put("text.logit_scale", lambda x: x.repeat(2))
    yield "no logit scale inside", put("text.logit_scale", lambda x: x[:0])
    yield "an endless logit scale", put("text.logit_scale", lambda x: x * torch.inf)
    yield "integers", every(lambda x: (100 * x).int())
    yield "booleans", every(lambda x: x > 0)
    yield "complex numbers", every(lambda x: x.to(torch.complex64))
    yield "numbers alone", every(lambda x: x.reshape(-1)[:1].reshape(()))
    yield "an axis more", every(lambda x: x[None])
    yield "beyond float32", every(lambda x: x.double() * 1e300)
    yield "a head of NaN", put("visual.head.weight", lambda x: x * torch.nan)
    yield "words of infinity", put("text.token_embedding.weight", lambda x: x / 0)
    yield "a name too much", lambda state: state.update(more=torch.zeros(3))
    yield (
        "a block too much",
        lambda state: state.update(
            {"text.transformer.resblocks.999999.ln_1.weight": torch.zeros(64)}
        ),
    )


def changed(change: Callable[[Weights], object]) -> Damage:
    """Make a damage of a change."""

    def damage(file: Path) -> None:
        if file.suffix == ".safetensors":
            state = load_file(file)
            change(state)
            save_file({name: value.contiguous() for name, value in state.items()}, file)
            return
        saved = torch.load(file, weights_only=True)
        change(saved["model"])
        torch.save(saved, file)

    return damage


class _Malicious(torch.nn.Module):
    """TorchScript whose code makes a file as soon as `torch.jit.load` has read it."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place
        self.weight = torch.zeros(3)

    @torch.jit.export
    def __getstate__(self):
        return (self.place, self.weight, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, torch.Tensor, bool]) -> None:
        self.place = state[0]
        self.training = state[2]
        self.weight = torch.from_file(self.place, True, 4) + state[1].sum()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def damages_of_archives(marker: Path) -> Iterator[tuple[str, Damage]]:
    """Yield name and function of each damage to a TorchScript archive."""

    def scripted(file: Path) -> None:
        torch.jit.save(torch.jit.script(_Malicious(str(marker))), file)

    def rewritten(change: Callable[[str, bytes], bytes | None]) -> Damage:
        def damage(file: Path) -> None:
            with zipfile.ZipFile(io.BytesIO(file.read_bytes())) as archive:
                records = {name: archive.read(name) for name in archive.namelist()}
            with zipfile.ZipFile(file, "w") as archive:
                for name, content in records.items():
                    if (new := change(name, content)) is not None:
                        archive.writestr(name, new)

        return damage

    def only(part: str, new: Callable[[bytes], bytes | None]) -> Damage:
        return rewritten(lambda name, old: new(old) if part in name else old)

    malice = pickle.dumps(Malice(marker))
    yield "code that runs when it is loaded", scripted
    yield "malice in its pickle", only("/data.pkl", lambda old: malice)
    yield "malice in its constants", only("/constants.pkl", lambda old: malice)
    yield "malice behind its pickle", only("/data.pkl", lambda old: old[:-1] + malice)
    yield "no pickle", only("/data.pkl", lambda old: None)
    yield "no memory", only("/data/", lambda old: None)
    yield "half of the memory", only("/data/", lambda old: old[: len(old) // 2])
    yield "its pickle cut", only("/data.pkl", lambda old: old[: len(old) // 2])
    yield "a pickle of marks", only("/data.pkl", lambda old: b"\x80\x02" + b"(" * 10_000_000 + b".")
    yield "its code torn", only("/code/", lambda old: old[: len(old) // 2])


def weights_cases(work: Path, marker: Path) -> Iterator[Case]:
    """Give `load_eva_clip` damaged files."""
    from eva_contrastive.model.loading import load_eva_clip

    state = small_clip().state_dict()
    save_file(state, work / "clip.safetensors")
    torch.save({"model": state}, work / "clip.pt")
    more = [(name, changed(change)) for name, change in changes_of_weights()]
    for good in (work / "clip.safetensors", work / "clip.pt"):
        _load(good, _nothing, load_eva_clip, state, work / f"undamaged {good.name}")
        for name, damage in (*kinds_of_damage(marker, random.Random(2)), *more):
            if good.suffix == ".safetensors" and name.startswith("a bit flipped"):
                continue  # the format has no checksum
            run = partial(_load, good, damage, load_eva_clip, state)
            yield Case(f"{name}, {good.name}", work / "case", run)


def _nothing(file: Path) -> None:
    """Leave a file as it is."""


def _load(
    good: Path,
    damage: Damage,
    load: Callable[[Path], torch.nn.Module],
    wanted: Weights,
    folder: Path,
) -> None:
    """Load a damaged file, as commands do."""
    folder.mkdir()
    file = folder / good.name
    file.write_bytes(good.read_bytes())
    damage(file)
    if damage is not _nothing:
        _limit_memory()
    try:
        found = load(file).state_dict()
    except (ValueError, OSError) as error:  # a sentence, as our commands give it
        sys.exit(str(error))
    if not all(torch.equal(value, found[name]) for name, value in wanted.items()):
        raise AcceptedError("other weights were loaded")


def text_cases(work: Path, marker: Path) -> Iterator[Case]:
    """Give a text tower damaged files to begin with."""
    from eva_contrastive.model.loading import initialise_text

    tower = small_clip().text

    def load(file: Path) -> torch.nn.Module:
        other = small_clip().text
        torch.nn.init.zeros_(other.token_embedding.weight)
        initialise_text(other, str(file))
        return other

    class Archive(torch.nn.Module):
        """The tensors as OpenAI's archives have them."""

        def __init__(self) -> None:
            super().__init__()
            for name in ("token_embedding", "transformer", "ln_final"):
                setattr(self, name, getattr(tower, name))
            for name in ("positional_embedding", "text_projection"):
                self.register_parameter(name, getattr(tower, name))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = tower.token_embedding(x)
            return found

    traced = torch.jit.trace(Archive(), torch.zeros(1, 3, dtype=torch.int64))
    torch.jit.save(traced, work / "archive.pt")
    save_file(small_clip().state_dict(), work / "clip.safetensors")
    torch.save({"model": small_clip().state_dict()}, work / "clip.pt")
    wanted = {name: value for name, value in tower.state_dict().items() if "logit" not in name}
    common = [*kinds_of_damage(marker, random.Random(3))]
    more = [(name, changed(change)) for name, change in changes_of_weights()]
    own = {"archive.pt": [*damages_of_archives(marker)], "clip.safetensors": more, "clip.pt": more}
    for name, special in own.items():
        _load(work / name, _nothing, load, wanted, work / f"undamaged {name}")
        for title, damage in (*common, *special):
            if name.endswith(".safetensors") and title.startswith("a bit flipped"):
                continue
            if title in _NOT_OF_TEXTS or (name == "archive.pt" and title in _ADDED):
                continue
            run = partial(_load, work / name, damage, load, wanted)
            yield Case(f"{title}, {name}", work / "case", run)


# Changes of what a text tower does not take from a file; and those that write another kind of file.
_NOT_OF_TEXTS = ("no vision head", "a head of NaN", "no vision tower")
_ADDED = ("malice beside the weights", "code as a config", "half the model", "other shapes",
          "NaN in the weights")  # fmt: skip


def hostile_shards(outside: Path) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Yield name and maker of each shard; `outside` is a picture that no shard holds."""
    jpeg, caption = _picture((200, 30, 10)), b"a red picture"

    def tar(*members: tuple[str, bytes], **changes: Any) -> Callable[[Path], None]:
        def make(file: Path) -> None:
            with tarfile.open(file, "w") as archive:
                for name, content in members:
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    for key, value in changes.items():
                        setattr(info, key, value)
                    archive.addfile(info, io.BytesIO(content))

        return make

    def sized(size: int) -> Callable[[Path], None]:
        """Members whose headers promise more than there is."""

        def make(file: Path) -> None:
            info = tarfile.TarInfo("a.jpg")
            info.size = size
            file.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + jpeg.ljust(10240, b"\0"))

        return make

    def linked(kind: bytes, target: str) -> Callable[[Path], None]:
        return tar(("a.jpg", b""), ("a.txt", caption), type=kind, linkname=target)

    pair = (("a.jpg", jpeg), ("a.txt", caption))
    yield "a path outside", tar(("../../a.jpg", jpeg), ("../../a.txt", caption))
    yield "an absolute path", tar((str(outside), jpeg), (str(outside.with_suffix(".txt")), caption))
    yield "a symbolic link", linked(tarfile.SYMTYPE, str(outside))
    yield "a hard link", linked(tarfile.LNKTYPE, str(outside))
    yield "a device", tar(*pair, type=tarfile.CHRTYPE, devmajor=1, devminor=5)
    yield "a pipe", tar(*pair, type=tarfile.FIFOTYPE)
    yield "a folder", tar(*pair, type=tarfile.DIRTYPE)
    yield "an unknown type", tar(*pair, type=b"Z")
    yield "a long name", tar((f"{'a' * 5_000_000}.jpg", jpeg), (f"{'a' * 5_000_000}.txt", caption))
    yield "a name of control characters", tar(("\x1b[2J\r.jpg", jpeg), ("\x1b[2J\r.txt", caption))
    yield "a name that is not text", tar(("\udcff.jpg", jpeg), ("\udcff.txt", caption))
    yield "a size beyond the end", sized(8 << 30)
    yield "a size beyond 64 bits", sized(1 << 80)
    yield "a negative size", sized(-512)
    yield "a picture of 4 gigapixels", tar(("a.png", _bomb(65_000)), pair[1])
    yield "a caption of zeros", tar(pair[0], ("a.txt", bytes(500_000)))
    yield "a caption of 50 MB", tar(pair[0], ("a.txt", b"a " * 25_000_000))
    yield "a caption that is not UTF-8", tar(pair[0], ("a.txt", b"\xff\xfe\xfa"))
    yield "a caption without words", tar(pair[0], ("a.txt", b" \n\t "))
    yield "a caption without letters", tar(pair[0], ("a.txt", "\u200b\u00ad".encode()))
    yield "a caption in one word", tar(pair[0], ("a.txt", b"a" * 900_000))
    letters = bytes(random.Random(0).choices(range(97, 123), k=900_000))
    yield "a caption in one word of many letters", tar(pair[0], ("a.txt", letters))
    yield "nested JSON", tar(pair[0], ("a.json", b"[" * 400_000))
    yield "JSON of a number", tar(pair[0], ("a.json", b'{"caption": ' + b"9" * 400_000 + b"}"))
    yield "JSON without a caption", tar(pair[0], ("a.json", b'{"caption": null}'))
    yield "a thousand pairs of one key", tar(*pair * 1000)
    yield "a text as a picture", tar(("a.jpg", b"no picture"), pair[1])
    yield "a cut picture", tar(("a.jpg", jpeg[: len(jpeg) // 2]), pair[1])
    yield "nothing", lambda file: file.write_bytes(b"")
    yield "zeros", lambda file: file.write_bytes(bytes(10240))
    yield "noise", lambda file: file.write_bytes(random.Random(0).randbytes(10240))
    yield "a gzip file", lambda file: tarfile.open(file, "w:gz").close()
    yield "a folder as a shard", Path.mkdir
    yield "a pipe as a shard", os.mkfifo
    yield "an endless shard", lambda file: file.symlink_to("/dev/zero")
    yield "a link to itself", lambda file: file.symlink_to(file.name)


def _picture(colour: tuple[int, int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def _bomb(side: int) -> bytes:
    """A PNG whose header promises side x side pixels."""
    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, "PNG")
    content = bytearray(stream.getvalue())
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def shard_cases(work: Path, marker: Path) -> Iterator[Case]:
    """Open a good and a hostile shard, and read every pair as a training does."""
    del marker
    outside = work / "outside.jpg"
    outside.write_bytes(_picture(_SECRET))
    outside.with_suffix(".txt").write_bytes(b"a secret")
    for name, make in hostile_shards(outside):
        yield Case(name, work / "case", partial(_read_pairs, make))


def _read_pairs(make: Callable[[Path], object], folder: Path) -> None:
    from eva_contrastive.config import DataConfig
    from eva_contrastive.model.eva_clip import tokenize
    from eva_contrastive.training import Pairs, training_transform
    from eva_data.captions.opening import open_captions

    folder.mkdir()
    with tarfile.open(folder / "00000.tar", "w") as archive:
        for name, content in (("0.jpg", _picture((0, 0, 0))), ("0.txt", b"a good one")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    make(folder / "00001.tar")
    _limit_memory()
    try:
        captions = open_captions(str(folder / "{00000..00001}.tar"))
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    pixels = DataConfig(train="x", mean=(0, 0, 0), std=(1, 1, 1))
    pairs = Pairs(captions, training_transform(32, pixels), 77)
    pairs.checksum()
    good = 0
    for index in range(len(pairs)):
        try:
            picture, tokens = pairs[index]
        except OSError:
            continue  # the engine takes another pair
        secret = torch.tensor(_SECRET) / 255
        if (picture.mean(dim=(1, 2)) - secret).abs().max() < 0.05:
            raise AcceptedError("it gave a picture from outside")
        if torch.equal(tokens, tokenize("a secret")[0]):
            raise AcceptedError("it gave a text from outside")
        good += torch.equal(tokens, tokenize("a good one")[0])
    if good != 1:
        raise AcceptedError(f"the good pair came {good} times")


def _limit_memory() -> None:
    """Refuse more address space than a case may take."""
    text = Path("/proc/self/statm").read_text(encoding="ascii")
    now = int(text.split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + _MEMORY, now + _MEMORY))


TARGETS = {"weights": weights_cases, "texts": text_cases, "shards": shard_cases}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="+", choices=TARGETS)
    parser.add_argument("--show", action="store_true", help="print how every case ends")
    args = parser.parse_args()
    torch.set_num_threads(1)
    failed = False
    for target in args.targets:
        with tempfile.TemporaryDirectory(prefix="eva_clip_") as temporary:
            marker = Path(temporary) / "executed"
            cases = TARGETS[target](Path(temporary), marker)
            row = attack(cases, Path(temporary), marker, show=args.show)
        cells = " | ".join(str(value) for value in row.values())
        sys.stdout.write(f"| input | {' | '.join(row)} |\n| clip {target} | {cells} |\n")
        failed = failed or row["cases"] != row["refused"] + row["went on"] or row["executed"] > 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
