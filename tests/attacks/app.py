"""Clients attack `eva app` at once: right answers, or one error each; bounded memory; no leftovers.

python tests/attacks/app.py RUN IMAGE [SECONDS [CLIENTS]]     # of a detector; 120 s, 8 clients
"""

import io
import json
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter, defaultdict
from pathlib import Path

import httpx
import numpy as np
import psutil
from gradio_client import Client, handle_file
from PIL import Image

SETTINGS: tuple[float, bool, bool, list[str]] = (
    0.05,
    True,
    False,
    [],
)  # score, masks, tiles, hidden classes
GOOD = ("normal", "animated", "16 bits")
OUTSIDE = Path("/tmp/eva_app_was_here.jpg")


def _png_of_zeros(side):
    """A PNG of some hundred kilobytes and side x side pixels."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    pixels = zlib.compress(bytes(1 + side // 8) * side, 9)
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    for name, content in ((b"IHDR", head), (b"IDAT", pixels), (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(name + content))
        parts += [struct.pack(">I", len(content)), name, content, check]
    return b"".join(parts)


def _encoded(image, form, **more):
    file = io.BytesIO()
    image.save(file, form, **more)
    return file.getvalue()


def make_files(folder, photo):
    """Make a file of each kind."""
    normal, image = photo.read_bytes(), Image.open(photo).convert("RGB")
    deep = Image.fromarray(np.asarray(image)[..., 0].astype(np.uint16) << 8)
    contents = {
        "normal": normal, "damaged": normal[: len(normal) // 2], "empty": b"", "16 bits":
        _encoded(deep, "PNG"), "33 MiB": bytes(33 * 2**20), "a bomb": _png_of_zeros(40_000),
        "animated": _encoded(image, "GIF", save_all=True, append_images=[image.rotate(90)] * 3),
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        "HTML": b"<html><script>alert(1)</script></html>",
    }  # fmt: skip
    for kind, content in contents.items():
        (folder / f"{kind}.jpg").write_bytes(content)
    return {kind: folder / f"{kind}.jpg" for kind in contents}


class Attack:
    """What the clients sent and got."""

    def __init__(self, address, run, files):
        self.address, self.run, self.files = address, run, files
        self.expected, self.counts = {}, defaultdict(Counter)
        self.seconds, self.wrong = [], []

    def ask(self, client, kind):
        """Send a file; an answer must be that of the first time, and only good files have one."""
        began, words = time.monotonic(), ([handle_file(str(self.files[kind]))], self.run, *SETTINGS)
        try:
            answer = client.predict(*words, api_name="/show_objects")
        except Exception as error:
            self.counts[kind]["error"] += 1
            if kind in GOOD and "queue" not in str(error).lower():
                self.wrong.append((kind, str(error)[:200]))
            return
        found = json.loads(Path(answer[2]).read_text())["annotations"]
        self.counts[kind]["right"] += 1
        self.seconds.append(time.monotonic() - began)
        if kind not in GOOD or found != self.expected.setdefault(kind, found):
            self.wrong.append((kind, "another answer"))

    def trick(self, http):
        """Ask for files of others, and upload one under a name that leads elsewhere."""
        names = {"files": (f"../../../..{OUTSIDE}", self.files["normal"].read_bytes())}
        http.post("/gradio_api/upload", files=names)
        for path in ("/etc/passwd", "../../etc/passwd", f"{self.run}/config.yaml", "http://a.b/"):
            code = http.get(f"/gradio_api/file={path}").status_code
            self.counts["files of others"]["error"] += 1
            self.wrong += [] if code in (403, 404) else [(path, code)]

    def work(self, seed, until):
        """Send files of all kinds in a random order."""
        random, kinds = np.random.default_rng(seed), [*self.files]
        with tempfile.TemporaryDirectory() as place, httpx.Client(base_url=self.address) as http:
            client = Client(self.address, verbose=False, download_files=place)
            while time.monotonic() < until:
                self.ask(client, kinds[random.integers(len(kinds))])
                if random.random() < 0.1:
                    self.trick(http)


def main(run, photo, seconds=120, clients=8):
    """Start the app, attack it, end it, say what happened; exit code 1 if something is wrong."""
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as left:
        words = [sys.executable, "-m", "eva_command", "app", run, "--port", "7985"]
        server = subprocess.Popen(words, env=os.environ | {"TMPDIR": left}, stdout=subprocess.PIPE)
        address = server.stdout.readline().decode().split()[0]
        attack, memory = Attack(address, run, make_files(Path(name), Path(photo))), []
        attack.work(0, time.monotonic() + 10)  # loads the model
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=attack.work, args=(k, until)) for k in range(clients)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            memory.append(psutil.Process(server.pid).memory_info().rss / 2**20)
            time.sleep(1)
        server.send_signal(signal.SIGTERM)
        code, rest = server.wait(60), [file for file in Path(left).rglob("*") if file.is_file()]
    lines = [f"{kind}: {dict(counts)}" for kind, counts in attack.counts.items()]
    lines += [
        f"answers in {statistics.median(attack.seconds):.2f} s, at most {max(attack.seconds):.2f}",
        f"memory {max(memory[: len(memory) // 4]):.0f} MiB in a quarter, {max(memory):.0f} in all",
        f"exit code {code}; left: {rest}; wrong: {attack.wrong[:10]}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return int(bool(attack.wrong or rest or code or OUTSIDE.exists()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3], *map(int, sys.argv[3:])))
