"""Digits with captions in webdataset shards, and class folders for zero-shot evaluation.

* `{train,val}/{00000..}.tar`: pairs `KEY.jpg` and `KEY.txt`, three for each scene.
* `zero_shot/CLASS/NUMBER.jpg`: other pictures with the digits and photographs of validation, two
  for each of its scenes, all digits alike; `classnames.txt` and `templates.txt` go with it.
* `wds/`: the pictures of `zero_shot` as CLIP_benchmark's `wds/` data sets are laid out.

`captions.json` says what is in each picture, from which the check proves that training and
validation are disjoint.
"""

import functools
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_demo.formats.format import Format, demand, demand_disjoint

if TYPE_CHECKING:
    from eva_demo.captioned_digits import CaptionedDigit, CaptionGenerator
    from eva_demo.splits import Split

PAIRS_PER_SCENE = 3
_ZERO_SHOT_PER_SCENE = 2
_PAIRS_PER_SHARD = 500
_QUALITY = 93


@functools.lru_cache(maxsize=2)
def caption_generator(split: "Split", size: int, seed: int) -> "CaptionGenerator":
    """Make the generator of a split, once per process.

    Args:
        split: Split of the pictures.
        size: Height and width of a scene in pixels; a picture has half of it, made even.
        seed: Seed of all pictures.
    """
    from eva_demo.captioned_digits import CaptionGenerator

    return CaptionGenerator(split, side=size // 4 * 2, seed=seed)


def _make(split: "Split", size: int, seed: int, index: int) -> list["CaptionedDigit"]:
    """Make the pairs of a scene, and in validation its pictures for zero-shot evaluation."""
    generator = caption_generator(split, size, seed)
    first = index * PAIRS_PER_SCENE
    made = [generator.make(number) for number in range(first, first + PAIRS_PER_SCENE)]
    if split == "val":
        first = index * _ZERO_SHOT_PER_SCENE
        numbers = range(first, first + _ZERO_SHOT_PER_SCENE)
        made += [generator.make(number, "zero_shot") for number in numbers]
    return made


def _prepare(folder: Path, split: "Split") -> None:
    from eva_demo.captioned_digits import NUMBERS

    (folder / split).mkdir(parents=True)
    if split == "val":
        (folder / "wds" / "test").mkdir(parents=True)
        for name in NUMBERS:
            (folder / "zero_shot" / name).mkdir(parents=True)


def _export(
    folder: Path, split: "Split", index: int, made: list["CaptionedDigit"]
) -> list[tuple[bytes, dict[str, Any]]]:
    """Encode the pictures of a scene; return them with what is in them."""
    from PIL import Image

    entries = []
    for digit in made:
        stream = io.BytesIO()
        Image.fromarray(digit.image).save(stream, "JPEG", quality=_QUALITY, subsampling=0)
        about = {
            "caption": digit.caption,
            "digit": digit.category,
            "digit_index": digit.digit_index,
            "photo": digit.background,
            "ground": digit.ground,
            "colour": digit.colour,
            "size": digit.size,
            "place": digit.place,
            "side": digit.image.shape[0],
        }
        entries.append((stream.getvalue(), about))
    return entries


def _finish(folder: Path, scenes: Mapping["Split", list[Any]]) -> list[Path]:
    """Write the shards, the class folders and `captions.json`; return all files."""
    from eva_demo.captioned_digits import NUMBERS, ZERO_SHOT_TEMPLATES

    contents: dict[str, list[dict[str, Any]]] = {}
    files: list[Path] = []
    for split, made in scenes.items():
        pairs = [entry for entries in made for entry in entries[:PAIRS_PER_SCENE]]
        files += _write_shards(folder / split, pairs)
        contents[split] = [about for _, about in pairs]
    shown = [entry for entries in scenes["val"] for entry in entries[PAIRS_PER_SCENE:]]
    members: list[tuple[str, bytes]] = []
    for number, (picture, about) in enumerate(shown):
        name = f"{NUMBERS[about['digit']]}/{number + 1:06d}.jpg"
        (folder / "zero_shot" / name).write_bytes(picture)
        files.append(folder / "zero_shot" / name)
        about["file"] = f"zero_shot/{name}"
        members += [
            (f"{number:06d}.jpg", picture),
            (f"{number:06d}.cls", str(about["digit"]).encode()),
        ]
    contents["zero_shot"] = [about for _, about in shown]
    files.append(_write_tar(folder / "wds" / "test" / "0.tar", members))
    names = "".join(f"{name}\n" for name in NUMBERS)
    texts = {
        "captions.json": json.dumps(contents),
        "classnames.txt": names,
        "templates.txt": "".join(f"{template}\n" for template in ZERO_SHOT_TEMPLATES),
        "wds/test/nshards.txt": "1\n",
        "wds/classnames.txt": names,
        "wds/dataset_type.txt": "classification\n",
        "wds/zeroshot_classification_templates.txt": "".join(
            f"{template.format('{c}')}\n" for template in ZERO_SHOT_TEMPLATES
        ),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [*files, *(folder / name for name in texts)]


def _write_shards(folder: Path, pairs: list[tuple[bytes, dict[str, Any]]]) -> Iterator[Path]:
    """Write pairs into shards as img2dataset names them; note each one's key."""
    for shard, first in enumerate(range(0, len(pairs), _PAIRS_PER_SHARD)):
        members = []
        for number, (picture, about) in enumerate(pairs[first : first + _PAIRS_PER_SHARD]):
            about["key"] = f"{shard:05d}{number:04d}"
            members += [
                (f"{about['key']}.jpg", picture),
                (f"{about['key']}.txt", about["caption"].encode()),
            ]
        yield _write_tar(folder / f"{shard:05d}.tar", members)


def _write_tar(file: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """Write a tar file whose bytes depend on the members only."""
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return file


def _check(folder: Path) -> None:
    """Check shards, folders and lists against `captions.json` and the rules of the data set."""
    for name in ("captions.json", "classnames.txt", "templates.txt", "wds/test/0.tar"):
        demand((folder / name).is_file(), f"{folder / name} is missing")
    contents = json.loads((folder / "captions.json").read_text())
    for split in ("train", "val"):
        _check_pairs(folder / split, contents[split])
    _check_zero_shot(folder, contents["zero_shot"])
    held_out = contents["val"] + contents["zero_shot"]
    for name, what in (("photo", "photographs"), ("digit_index", "digits")):
        trained, other = ([entry[name] for entry in part] for part in (contents["train"], held_out))
        demand_disjoint(folder, what, trained, other)
    words = [
        {word for entry in contents[split] for word in entry["caption"].split()}
        for split in ("train", "val")
    ]
    if len(contents["train"]) >= 1000:  # enough to have all words
        demand(words[1] <= words[0], f"{folder}: words of val only: {sorted(words[1] - words[0])}")


def _check_zero_shot(folder: Path, shown: list[dict[str, Any]]) -> None:
    """Check the class folders and their copies for CLIP_benchmark."""
    from eva_demo.captioned_digits import NUMBERS

    found = {path.relative_to(folder).as_posix() for path in folder.glob("zero_shot/*/*")}
    different = sorted(found ^ {entry["file"] for entry in shown})
    demand(not different, f"{folder}: {different[:1]} not both on disk and in captions.json")
    classes = (folder / "classnames.txt").read_text().split()
    demand(classes == [*NUMBERS], f"{folder / 'classnames.txt'} has {classes}, not {[*NUMBERS]}")
    counts = Counter(entry["digit"] for entry in shown)
    least, most = min(counts.values()), max(counts.values())
    demand(most - least <= 1, f"{folder / 'zero_shot'}: digits come {least} to {most} times")
    copies = _members(folder / "wds" / "test" / "0.tar")
    for number, entry in enumerate(shown):
        file, key = folder / entry["file"], f"{number:06d}"
        digit, name = entry["digit"], Path(entry["file"]).parent.name
        demand(name == NUMBERS[digit], f"{file} lies in {name}, but shows {NUMBERS[digit]}")
        _check_picture(file.read_bytes(), entry["side"], str(file))
        same = copies.get(f"{key}.jpg") == file.read_bytes()
        demand(same, f"{folder / 'wds'}: {key}.jpg is not {file}")
        label = copies.get(f"{key}.cls", b"").decode()
        demand(label == str(digit), f"{folder / 'wds'}: {key}.cls is {label!r}, not {digit}")


def _check_pairs(folder: Path, entries: list[dict[str, Any]]) -> None:
    """Check the shards of a split."""
    from eva_demo.captioned_digits import NUMBERS

    found: dict[str, bytes] = {}
    for shard in sorted(folder.iterdir()):
        found |= _members(shard)
    names = {f"{entry['key']}.{suffix}" for entry in entries for suffix in ("jpg", "txt")}
    different = sorted({*found} ^ names)
    demand(not different, f"{folder}: {different[:1]} not both in a shard and in captions.json")
    for entry in entries:
        where, caption = f"{folder}: {entry['key']}", found[f"{entry['key']}.txt"].decode()
        demand(
            caption == entry["caption"],
            f"{where} has the caption {caption!r}, captions.json {entry['caption']!r}",
        )
        number = NUMBERS[entry["digit"]]
        demand(number in caption.replace(",", "").split(), f"{where}: {caption!r} lacks {number}")
        _check_picture(found[f"{entry['key']}.jpg"], entry["side"], where)


def _members(file: Path) -> dict[str, bytes]:
    """Read a tar file."""
    try:
        with tarfile.open(file, "r:") as tar:
            opened = ((member.name, tar.extractfile(member)) for member in tar)
            return {name: stream.read() for name, stream in opened if stream is not None}
    except (tarfile.TarError, OSError) as error:
        raise ValueError(f"{file} is damaged ({error})") from error


def _check_picture(content: bytes, side: int, where: str) -> None:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            found = picture.size, picture.mode
    except OSError as error:
        raise ValueError(f"{where} cannot be decoded ({error})") from error
    demand(found == ((side, side), "RGB"), f"{where} is {found}, not {side} x {side} RGB")


CAPTIONED_DIGITS = Format(_prepare, _export, _finish, _check, make=_make)
