"""Damaged outputs of `eva batch` and indexes: one line and code 1, or the results as they were."""

import io
import json
import shutil

import numpy as np
import pytest

from eva_command.batch import index, main as batch
from eva_contrastive.commands import demo

NUMBER = 260
ALONE = ("--device", "cpu", "--processes", "0")


def truncated(share):
    return lambda content: content[: int(share * len(content))]


def flipped(place, bit):
    def change(content):
        content = bytearray(content)
        content[int(place * (len(content) - 1))] ^= 1 << bit
        return bytes(content)

    return change


def text(value):
    return lambda content: value.encode()


def array(change):
    def changed(content):
        stream = io.BytesIO()
        np.save(stream, change(np.load(io.BytesIO(content))))
        return stream.getvalue()

    return changed


FLIPS = [(0.02, 6), (0.5, 6), (0.98, 1)]
EVERY = {
    "gone": None, "empty": truncated(0), "short": truncated(0.99),
    "zeros": lambda content: bytes(len(content)),
    **{f"bit {bit} at {place}": flipped(place, bit) for place, bit in FLIPS},
}  # fmt: skip
OF_JSON = {kind: text(kind) for kind in ("null", "{}", '{"plan": []}')}
OF_FEATURES = {
    "NaN": array(lambda one: one * np.nan), "complex": array(lambda one: one.astype(complex)),
    "float32": array(np.float32), "wider": array(lambda one: one.repeat(2, 1)),
    "fewer": array(lambda one: one[:-1]), "numbers": array(lambda one: one.astype(np.int64)),
    "order": array(np.asfortranarray), "other rows": array(lambda one: one[::-1].copy()),
    "objects": lambda content: content.replace(b"<f2", b"|O8"),
}  # fmt: skip
INDEX = [
    (name, kind)
    for name in ("index.json", "names.arrow", "features.npy", "index.faiss")
    for kind in (EVERY | (OF_JSON if name == "index.json" else {})
                 | (OF_FEATURES if name == "features.npy" else {}))
]  # fmt: skip
OUTPUT = [
    (name, kind)
    for name in ("manifest.json", "settings.json", "model.json", "names-*.parquet",
                 "parts/part-000001.parquet", "parts/part-000002.failed.txt")
    for kind in EVERY | (OF_JSON if name.endswith(".json") else {})
]  # fmt: skip
CHANGES = EVERY | OF_JSON | OF_FEATURES


@pytest.fixture(scope="module")
def made(tmp_path_factory, clip_weights):
    """Folder of the output of a batch, and of an index of faiss of it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "texts.txt").write_text("".join(f"thing {number}\n" for number in range(NUMBER)))
    words = ["features", folder / "texts.txt", "--texts", "--weights", clip_weights, *ALONE]
    words += ["--output", folder / "out", "--shard-size", 65, "--precision", "fp32"]
    assert batch([*map(str, words)]) == 0
    (folder / "out/parts/part-000002.failed.txt").write_text("a reason\n")
    words = ["build", folder / "out", "--output", folder / "index", "--exact-up-to", 10]
    assert index([*map(str, words)]) == 0
    return folder


@pytest.fixture
def ended(capsys):
    """Function: run a command; gives its code, and its complaint of one line."""

    def run(main, *words):
        capsys.readouterr()
        try:
            code = main([*map(str, words)]) or 0
        except SystemExit as end:
            code = end.code
        out, error = capsys.readouterr()
        if isinstance(code, str):
            code, error = 1, f"{code}\n"
        assert code in (0, 1)
        error = error or "".join(line for line in out.splitlines() if " failed: " in line) * code
        assert len(error.strip().splitlines()) == code, error
        return code, error

    return run


def damage(folder, made, name, kind):
    shutil.copytree(made, folder)
    (file,) = folder.glob(name)
    if CHANGES[kind] is None:
        file.unlink()
    else:
        file.write_bytes(CHANGES[kind](file.read_bytes()))
    return file


def search(ended, place, output, weights):
    words = ["search", place, "--weights", weights, "--text", "thing 7", "--top", 9]
    return ended(demo, *words, "--output", output, "--device", "cpu", "--precision", "fp32")


def hits_of(output):
    return json.loads((output / "results.json").read_text())["queries"]


@pytest.fixture(scope="module")
def weights_in_memory(clip_weights):
    """CLIP is loaded once for all searches."""
    from eva_contrastive.inference.features import ClipFeatures

    clip = ClipFeatures.from_weights(clip_weights, device="cpu", precision="fp32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClipFeatures, "from_weights", lambda *_, **__: clip)
        yield clip_weights


@pytest.mark.parametrize(("name", "kind"), INDEX)
def test_a_damaged_index_is_refused_or_gives_the_same_hits(
    made, tmp_path, weights_in_memory, ended, name, kind
):
    damage(tmp_path / "index", made / "index", name, kind)
    code, error = search(ended, tmp_path / "index", tmp_path / "hits", weights_in_memory)
    assert not code or str(tmp_path / "index") in error
    if not code:
        assert search(ended, made / "index", tmp_path / "whole", weights_in_memory)[0] == 0
        assert hits_of(tmp_path / "hits") == hits_of(tmp_path / "whole")


@pytest.mark.parametrize(("name", "kind"), OUTPUT)
def test_a_damaged_output_is_refused_or_mended(
    made, tmp_path, weights_in_memory, ended, name, kind
):
    out = tmp_path / "out"
    file = damage(out, made / "out", name, kind)
    merged = tmp_path / "merged.parquet"
    words = ["features", made / "texts.txt", "--texts", "--weights", weights_in_memory, *ALONE]
    words += ["--output", out, "--shard-size", 65, "--precision", "fp32"]
    commands = [("status", out), ("merge", out, "--output", merged), ("retry", out, *ALONE), words]
    ends = [ended(batch, *command) for command in commands]
    ends.append(ended(index, "build", out, "--output", tmp_path / "index"))
    for _, error in ends:
        assert not error or str(out) in error
    if ends[-1][0] == 0:
        assert ended(batch, *commands[1], "--overwrite")[0] == 0
        assert ended(batch, "merge", made / "out", "--output", tmp_path / "whole.parquet")[0] == 0
        assert merged.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    else:
        assert file.name in ends[-1][1]
    assert not [*tmp_path.glob(".*writing*")]
