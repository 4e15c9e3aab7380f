"""What visitors hand in: bounded in bytes, pixels and number, and fetched from nowhere else."""

import base64
import hashlib
import math
import re
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, NoReturn

import gradio as gr
from gradio import processing_utils
from huggingface_hub import constants
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from eva_data.files import printable
from eva_data.images import inspect_image, read_rgb
from eva_report.drawing import Pixels

MOST_FILES, MOST_BYTES = 16, 32 * 2**20
_MOST_PIXELS = 50_000_000  # of all images that are dropped together
_LEAST_FREE = 2 * 2**30  # bytes of the disk that uploads leave free
_ELSEWHERE = re.compile(r"/proxy=|/file=\s*[a-z]+:/", re.I)


@dataclass(frozen=True)
class Image:
    """An image of a visitor, by the digest of its file: pixels (H, W, 3) and its name."""

    digest: str
    rgb: Pixels = field(compare=False)
    name: str = field(compare=False)


def drop_images(label: str = "Images", *, several: bool = True, kind: str = "image") -> gr.File:
    """Make the place where a visitor drops images, or videos; its value are paths, or None."""
    count: Any = "multiple" if several else "single"
    file_input = gr.File(label=label, file_count=count, file_types=[kind], height=160)
    # gradio's leaves an empty file for each
    file_input.preprocess = _paths  # type: ignore[method-assign,assignment]
    return file_input


def show_images(label: str, columns: int) -> gr.Gallery:
    """Make the place of images with captions; with no columns, the first is large."""
    options: dict[str, Any] = {
        "object_fit": "contain",
        "height": "auto" if columns else 560,
        "elem_classes": "sheet" if columns else "large",
    }
    options |= {"buttons": ["download", "fullscreen"]}
    options |= {"columns": columns} if columns else {"preview": True, "selected_index": 0}
    return gr.Gallery(label=label, **options)


def legend(
    entries: Iterable[tuple[str, Sequence[int], str]], seconds: Sequence[float], unit: str = "image"
) -> str:
    """Write a legend in HTML: name, color and number of each class; below, the time per image."""
    lines = [
        f'<li><i style="background:rgb({red},{green},{blue})"></i> {escape(name)} <b>{number}</b>'
        for name, (red, green, blue), number in entries
    ]
    mean = f"{1000 * sum(seconds) / len(seconds):,.0f} ms per {unit}" if seconds else ""
    return f'<ul class="legend">{"".join(lines)}</ul><p class="time">{mean}</p>'


def _paths(dropped: Any) -> list[str] | None:
    return dropped and [file.path for file in getattr(dropped, "root", [dropped])]


def read_images(files: Sequence[str] | None) -> list[Image]:
    """Read what was dropped; a warning names what cannot be read, an error if that is all."""
    files, images, problems, left = files or [], list[Image](), list[str](), _MOST_PIXELS
    if len(files) > MOST_FILES:
        raise ValueError(f"{len(files)} files are more than {MOST_FILES}: drop fewer")
    for file in files:
        name = printable(Path(file).name)
        try:
            content = Path(file).read_bytes()
            left -= math.prod(inspect_image(content, decode=False, name=name)[:2])
            if left < 0:
                raise ValueError(f"with {name} there are more than {_MOST_PIXELS:,} pixels")
            rgb = read_rgb(content, upright=True, name=name)
        except (OSError, ValueError) as error:  # such as one that was deleted after an hour
            problems.append(str(error).replace(file, name))
            continue
        taken = any(Path(image.name).stem == Path(name).stem for image in images)
        name = f"{Path(name).stem}_{len(images) + 1}{Path(name).suffix}" if taken else name
        images.append(Image(hashlib.sha256(content).hexdigest(), rgb, name))
    if problems and not images:
        raise ValueError("; ".join(problems))
    for problem in problems:
        gr.Warning(problem)
    return images


def read_named(image: str | Mapping[str, Any] | None, folder: Path | None) -> Image:
    """Read an image that a program names: a path below the folder, `data:` in base64, or an upload.

    An upload is what `gradio_client.handle_file` sends.
    """
    if image is None:
        raise ValueError("no image: name a path, data: in base64, or an upload")
    if isinstance(image, Mapping):
        image, folder = str(image.get("path")), Path(gr.utils.get_upload_folder())
    path = Path(folder or "", image[:1000]).resolve()
    if image.startswith("data:"):
        rgb = read_rgb(base64.b64decode(image.partition(",")[2]), upright=True)
    elif folder is not None and path.is_relative_to(folder.resolve()):
        rgb = read_rgb(path, upright=True, name=image)
    else:
        raise ValueError(f"{image} is not below the folder of the app ({folder})")
    return Image(hashlib.sha256(rgb.tobytes()).hexdigest(), rgb, path.name)


def forbid_fetching() -> None:
    """Let gradio fetch and send nothing any more, such as the addresses that visitors may give."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise gr.Error("files are uploaded, not fetched from an address", print_exception=False)

    for name in ("async_ssrf_protected_download", "ssrf_protected_download", "save_url_to_cache"):
        setattr(processing_utils, name, refuse)
    constants.HF_HUB_DISABLE_TELEMETRY = True  # of the client that gradio's tools for agents have


def guard_requests(app: ASGIApp, folder: Path, hosts: Collection[str] = ()) -> ASGIApp:
    """Make the middleware that bounds requests, and refuses those for files of other machines.

    Of `hosts`, if there are any, a request names one: a page of a stranger, to whose name an
    attacker gives the address of this machine, does not (DNS rebinding).
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        host = re.sub(r":\d+$", "", Headers(scope=scope).get("host", "")).strip("[]").lower()
        code = _refusal(scope, folder) if not hosts or host in hosts else 403
        refused = PlainTextResponse("refused by the limits of the app", code)
        await (refused if code else app)(scope, receive, send)

    return answer


def _refusal(scope: Scope, folder: Path) -> int:
    if _ELSEWHERE.search(scope["path"]):
        return 403
    if scope["method"] != "POST":
        return 0
    length = Headers(scope=scope).get("content-length", "")
    if not length.isdecimal() or int(length) > MOST_FILES * MOST_BYTES:
        return 413
    return 507 if shutil.disk_usage(folder).free < int(length) + _LEAST_FREE else 0
