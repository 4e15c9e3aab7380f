"""`eva app`: what it shows is what the demos write, and nothing of it or its visitors gets out."""

import asyncio
import base64
import contextlib
import gc
import http.client
import json
import os
import re
import shutil
import signal
import socket
import zipfile
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_api
import pytest
import torch
from PIL import Image

gradio_client = pytest.importorskip("gradio_client")
httpx = pytest.importorskip("httpx")
# of event loops that gradio and its client leave, and of pandas, by gradio's plots
LEFT = ("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:.*no_silent_downcasting")
pytestmark = [pytest.mark.filterwarnings(warning) for warning in LEFT]
HERE = ("127.0.0.1", "localhost", "::1", "0.0.0.0")
OF_IMAGES = ("detection", "mmdetection", "segmentation")
SHOWN: tuple[float, bool, bool, list[str]] = (
    0.3,
    True,
    False,
    [],
)  # least score, masks, tiles, hidden classes
REFUSED = gradio_client.exceptions.AppError


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    from eva_classification.models import build_classifier

    torch.manual_seed(5)
    model = build_classifier("eva_debug", num_classes=9, img_size=32)
    torch.nn.init.normal_(model.head.weight)
    file = tmp_path_factory.mktemp("classifier") / "model.pt"
    torch.save(model.state_dict(), file)
    return str(file)


@pytest.fixture(scope="module")
def photos(demo):
    return sorted((demo("coco") / "coco/val").iterdir())


@pytest.fixture(scope="module")
def folder(finished, photos, tmp_path_factory):
    """A folder of runs, of detectors that find threes and fours everywhere; and an image."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("detection", "segmentation", "mmdetection", "clip", "video"):
        shutil.copytree(finished(name), folder / name)
    for file in (*folder.glob("detection/*.pth"), *folder.glob("mmdetection/*.pth")):
        content = torch.load(file, weights_only=False)  # written by these tests
        table = content.get("model") or content["state_dict"]
        for name in (name for name in table if name.endswith(("cls_score.bias", "fc_cls.bias"))):
            table[name][3:5] += 6
        torch.save(content, file)
    shutil.copy(photos[0], folder / "photo.jpg")
    return folder


@pytest.fixture(scope="module")
def reached():
    """Names of machines that are connected to or looked up meanwhile, but for this one."""
    names, connect, look_up = [], socket.socket.connect, socket.getaddrinfo

    def note(host):
        names.extend([] if str(host) in HERE or str(host).startswith("/") else [host])

    def noted_connect(self, address):
        note(address[0] if isinstance(address, tuple) else address)
        return connect(self, address)

    def noted_look_up(host, *rest, **more):
        note(host)
        return look_up(host, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", noted_connect)
        patch.setattr(socket, "getaddrinfo", noted_look_up)
        yield names


@pytest.fixture(scope="module")
def app(folder, classifier, reached):
    """Address of an app with a model of each task; it reaches no other machine."""
    from eva_app.command import Source, find_source
    from eva_app.models import Models
    from eva_app.server import serve

    runs = (folder / name for name in (*OF_IMAGES, "clip", "video"))
    sources = [find_source(str(run)) for run in runs]
    models = Models([*sources, Source("classification", classifier)], folder=folder, device="cpu")

    gc.collect()  # finalisers that import disturb imports of gradio
    with serve(models, mcp=True) as address:
        yield address
    gc.collect()
    assert not reached


@pytest.fixture(scope="module")
def client(app, tmp_path_factory):
    place = tmp_path_factory.mktemp("downloads")
    return gradio_client.Client(app, verbose=False, download_files=place)


@pytest.fixture(scope="module")
def ask(client):
    """Function: the answer of a page to files, None for none, and settings."""

    def call(page, files, *words):
        several = isinstance(files, list)
        sent = [gradio_client.handle_file(str(one)) for one in (files if several else [files])]
        return client.predict(sent if several else sent[0], *words, api_name=f"/{page}")

    return call


def test_a_task_is_that_of_weights_of_no_run(folder, classifier):
    from eva_app.command import find_source

    found = [
        find_source(one, None, "classification") for one in (classifier, str(folder / "detection"))
    ]
    assert [one.task for one in found] == ["classification", "detection"]


def demo_of(task, *words):
    from eva_command.main import main

    assert main([task, "demo", *map(str, words)]) == 0


@pytest.mark.parametrize("task", ["detection", "mmdetection"])
def test_objects_are_those_of_the_demo_to_the_digit(ask, folder, photos, tmp_path, task):
    words = (photos[:2], str(folder / task))
    table = ask("show_objects", *words, *SHOWN)[1]["data"]
    least = float(np.median([row[2] for row in table]))
    demo_of(task, folder / task, *photos[:2], "--output", tmp_path, "--score-threshold", least)
    expected = json.loads((tmp_path / "predictions.json").read_text())
    gallery, fewer, coco, yolo, _, legend = ask("show_objects", *words, least, *SHOWN[1:])
    assert json.loads(Path(coco).read_text()) == expected
    scores = [round(one["score"], 4) for one in expected["annotations"]]
    assert [row[2] for row in fewer["data"]] == scores
    assert 0 < len(scores) < len(table)
    counts = [int(count) for count in re.findall("<b>(\\d+)</b>", legend)]  # and time per image
    assert sum(counts) == len(scores)
    assert re.search("\\d ms", legend)
    assert [one["caption"] for one in gallery] == [photo.name for photo in photos[:2]]
    with zipfile.ZipFile(yolo) as labels:
        lines = labels.read(f"labels/train/{photos[0].stem}.txt").decode().splitlines()
    assert len(lines) == sum(row[0] == photos[0].name for row in fewer["data"])


def test_classes_are_hidden(ask, folder, photos):
    def shown(least, *hidden):
        words = (str(folder / "detection"), least, False, False, [*hidden])
        _, table, *_, kinds, _ = ask("show_objects", photos[:1], *words)
        return {row[1] for row in table["data"]}, {name for _, name in kinds["choices"]}

    assert shown(0.05) == ({"3", "4"}, {"3", "4"})
    assert shown(0.05, "3") == ({"4"}, {"3", "4"})
    assert shown(1) == (set(), set())


def test_regions_are_the_label_map_of_the_demo(ask, folder, photos, tmp_path):
    demo_of("segmentation", folder / "segmentation", photos[0], "--output", tmp_path)
    labels = np.asarray(Image.open(next((tmp_path / "labels").iterdir())))
    words = (str(folder / "segmentation"), 0, True, False, [])
    coco = json.loads(Path(ask("show_regions", photos[:1], *words)[2]).read_text())
    found = np.zeros_like(labels)
    for one in coco["annotations"]:
        found[mask_api.decode(one["segmentation"]) > 0] = one["category_id"]
    assert (found == labels).all()


def test_classes_are_those_of_the_demo(ask, classifier, photos, tmp_path):
    words = ("--weights", classifier, photos[0], "--output", tmp_path, "--device", "cpu")
    demo_of("classification", *words)
    (expected,) = json.loads((tmp_path / "predictions.json").read_text())["files"]
    _, classes, looked, _ = ask("show_classes", photos[:1], classifier, None, True)
    found = [(one["label"], one["confidence"]) for one in classes["confidences"]]
    assert found == [(one["class"], one["probability"]) for one in expected["classes"]]
    assert np.asarray(Image.open(looked[0]["image"])).std() > 1


def test_two_models_on_one_image(ask, folder, classifier, photos):
    names = (str(folder / "detection"), classifier)
    both = ask("show_both", photos[0], *names, 0.3)
    captions = [one["caption"].partition(":")[0] for one in both]
    assert captions == ["detection", Path(classifier).name]
    sizes = [Image.open(one["image"]).size for one in both]
    assert sizes[0] == (512, 512)
    assert sizes[1][1] > sizes[1][0]  # with bars below


def test_a_program_asks_and_gets_the_same(client, folder, classifier, photos):
    data = "data:image/jpeg;base64," + base64.b64encode(photos[0].read_bytes()).decode()
    words = (str(folder / "detection"), 0.3)
    images = ("photo.jpg", data, gradio_client.handle_file(str(photos[0])))
    found = [client.predict(one, *words, api_name="/predict") for one in images]
    assert found[0] == found[1] == found[2]
    assert {"category", "score", "bbox", "segmentation"} <= found[0][0].keys()
    assert len(client.predict("photo.jpg", classifier, api_name="/predict")) == 5
    upload = {"path": str(folder / "photo.jpg"), "meta": {"_type": "none"}}  # which it is not
    with pytest.raises(REFUSED, match="no image"):
        client.predict(None, *words, api_name="/predict")
    for image in ("", "../secret.jpg", "/etc/passwd", "data:image/png;base64,none", upload):
        with pytest.raises(REFUSED):
            client.predict(image, *words, api_name="/predict")
    with pytest.raises(REFUSED, match="high"):
        client.predict("photo.jpg", words[0], "high", api_name="/predict")


def test_a_program_searches_by_a_clip(client, folder):
    clip, other = str(folder / "clip"), str(folder / "video")
    with pytest.raises(REFUSED, match=r"clip.*there are .*detection"):
        client.predict("photo.jpg", clip, api_name="/predict")
    assert client.predict(None, clip, 2, api_name="/find_images") == []
    assert len(client.predict("seven", clip, 2, api_name="/find_images")) == 2
    for words, named in (("seven", other, 2), other), (("seven", clip, -2), "-2"):
        with pytest.raises(REFUSED, match=re.escape(named)):
            client.predict(*words, api_name="/find_images")


def test_tools_for_agents_say_what_they_do(app):
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async def call():
        async with (
            streamable_http_client(f"{app}gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            return tools, await session.call_tool("predict", {"image": "photo.jpg", "score": 0.3})

    tools, answer = asyncio.run(call())
    assert tools.keys() == {"predict", "runs", "find_images"}
    assert "detector" in tools["predict"].description
    described = tools["predict"].inputSchema["properties"].values()
    assert all(one["description"] for one in described)
    assert "segmentation" in answer.content[0].text


def test_runs_and_their_reports_are_served_and_nothing_else(client, app, folder):
    runs = {one["run"]: one for one in client.predict(api_name="/runs")}
    assert runs.keys() == {*OF_IMAGES, "clip", "video"}
    assert runs["detection"]["score"] == runs["detection"]["scores"]["bbox/AP"]
    assert all(run["finished"] and run["date"] for run in runs.values()), runs
    with httpx.Client(base_url=app) as visitor:
        assert all(visitor.get(one["report"]).status_code == 200 for one in runs.values())
        for path in (
            folder / "detection/model_final.pth", folder / "detection/config.yaml", "/etc/passwd",
            f"{os.environ['GRADIO_TEMP_DIR']}/../../etc/passwd", "HTTPS://example.com/a.jpg",
        ):  # fmt: skip
            assert visitor.get(f"/gradio_api/file={path}").status_code in (403, 404), path
        assert visitor.get("/gradio_api/proxy=http://example.com/").status_code == 403
        for host, code in (("localhost:1", 200), ("127.0.0.1", 200), ("example.com:7860", 403)):
            assert visitor.get("/config", headers={"Host": host}).status_code == code
            tools = visitor.post("/gradio_api/mcp/", headers={"Host": host}, json={})
            assert (tools.status_code == 403) == (code == 403), tools.text
        for path in ("http://example.com/a.jpg", "/etc/hostname", str(folder / "photo.jpg")):
            file = {"path": path, "meta": {"_type": "gradio.FileData"}}
            for words in (([file], "", *SHOWN), (None, file, *SHOWN)):
                asked = "/gradio_api/call/show_objects"
                event = visitor.post(asked, json={"data": words}).json()["event_id"]
                assert "event: error" in visitor.get(f"{asked}/{event}").text


def test_uploads_are_bounded_and_each_mistake_is_one_sentence(ask, app, folder, photos, tmp_path):
    broken, large, deep, long = (tmp_path / f"{name}.png" for name in ("no", "large", "16", "long"))
    broken.write_bytes(b"<svg onload=alert(1)>")
    Image.new("1", (8000, 7000)).save(large)
    Image.fromarray(np.full((40, 40), 65_535, np.uint16)).save(deep)
    long.write_bytes(bytes(33 * 2**20))
    words = (str(folder / "detection"), *SHOWN)
    for files, said in (([broken], "no.png"), ([large], "large.png"), ([deep] * 17, "16")):
        with pytest.raises(REFUSED, match=said):
            ask("show_objects", files, *words)
    assert len(ask("show_objects", [broken, deep, photos[0]], *words)[0]) == 2
    with pytest.raises(REFUSED, match=r"^cannot read (?!.*/).*no\.png"):
        ask("watch", broken, str(folder / "video"), 1.0)
    for length in (2**40, "none"):
        connection = http.client.HTTPConnection(app.split("/")[2])
        connection.putrequest("POST", "/gradio_api/upload")
        connection.putheader("Content-Length", str(length))
        connection.endheaders()
        assert connection.getresponse().status in (400, 413)
        connection.close()
    files = {"files": ("long.png", long.read_bytes())}
    assert httpx.post(f"{app}gradio_api/upload", files=files).status_code == 413


def test_an_address_where_nobody_can_listen_is_refused_at_once():
    from eva_app.models import Models
    from eva_app.server import serve

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for host, said in (("127.0.0.1", "in use"), ("192.0.2.1", "192.0.2.1")):
            with (
                pytest.raises(OSError, match=f"{said}.*{port}"),
                serve(Models([]), host=host, port=port),
            ):
                pass


def test_others_are_let_in_by_a_password_and_nothing_of_them_stays(
    start, run, fails, folder, wait_for
):
    words = ("eva", "app", "--folder", folder, "--host", "0.0.0.0")
    fails(run(*words, code=None), "--password", code=2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = start(*words, "--port", port, EVA_APP_PASSWORD="open sesame")
    wait_for(lambda: "until" in running.out.read_text())
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as visitor:
        file = {"files": ("../a.jpg", b"0")}
        assert visitor.post("/gradio_api/upload", files=file).status_code == 401
        visitor.post("/login", data={"username": "eva", "password": "open sesame"})
        (left,) = visitor.post("/gradio_api/upload", files=file).json()
    assert Path(left).exists()
    running.process.send_signal(signal.SIGTERM)
    assert running.wait().code == 0
    assert not Path(left).parents[1].exists()


# ---- in a browser --------------------------------------------------------------------------------
AXE = ["color-contrast", "label", "button-name", "image-alt", "link-name", "aria-input-field-name"]
IMAGES = "[role=tabpanel]:visible .block:not(.examples) .thumbnail-item img"
NOTHING_FOUND = "document.querySelectorAll('.body-cell').length == 0"


@pytest.fixture
def page(app):
    """The app in Chromium, which meets no error and no other machine."""
    playwright = pytest.importorskip("playwright.sync_api")
    if (program := shutil.which("chromium")) is None:
        pytest.skip("Chromium is not installed: apt install chromium")
    errors, asked = [], []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(30_000)
        page.on("console", lambda one: errors.append(one.text) if one.type == "error" else None)
        page.on("pageerror", lambda one: errors.append(str(one)))
        page.on("request", lambda one: asked.append(one.url))
        page.goto(app)
        yield page
        browser.close()
    assert not errors
    assert not [url for url in asked if not url.startswith((app, "data:", "blob:"))]


def show(page, title, *files):
    """Open a page, drop files, and wait for an image."""
    page.get_by_role("tab", name=title).click()
    place = page.locator("[role=tabpanel]:visible input[type=file]").first
    place.set_input_files([*map(str, files)])
    page.locator(IMAGES).first.wait_for()


@pytest.mark.parametrize("title", ["Segment", pytest.param("CLIP", marks=pytest.mark.slow)])
def test_a_browser_shows_results_of_an_example(page, title):
    page.get_by_role("tab", name=title).click()
    page.locator(".examples:visible button").nth(1).click()
    page.locator(IMAGES).first.wait_for()


@pytest.mark.slow
def test_results_stand_before_settings_on_a_phone(page):
    page.set_viewport_size({"width": 400, "height": 800})
    page.get_by_role("tab", name="Detect").click()
    tops = [
        page.locator(f".{name}:visible").bounding_box()["y"] for name in ("results", "settings")
    ]
    assert tops == sorted(tops)


@pytest.mark.slow
def test_sliders_and_switches_change_what_is_shown(page, photos):
    show(page, "Detect", *photos[:2])
    image = page.locator(IMAGES).first
    before = image.get_attribute("src")
    page.get_by_label("Masks").first.uncheck()
    image = page.locator(f"{IMAGES}:not([src='{before}'])").first
    image.wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download COCO").first.click()
    assert json.loads(Path(download.value.path()).read_text())["annotations"]
    page.get_by_label("number input for Confidence").first.fill("1")
    page.keyboard.press("Tab")
    page.wait_for_function(NOTHING_FOUND)


@pytest.mark.slow
def test_the_keyboard_is_enough(page, photos):
    playwright = pytest.importorskip("playwright.sync_api")
    script = "document.activeElement.{0}".format
    named = " + ".join(script(one) for one in ("ariaLabel", "innerText", "labels?.[0]?.innerText"))

    def reach(label):
        for _ in range(200):
            page.keyboard.press("Tab")
            if label in page.evaluate(named):
                return
        raise AssertionError(label)

    def press(key, label, state):
        """Press a key until it has an effect: a part that is drawn anew loses the focus."""
        for _ in range(5):
            reach(label)
            page.keyboard.press(key)
            with contextlib.suppress(playwright.TimeoutError):
                return page.wait_for_function(state)
        raise AssertionError(label)

    page.get_by_role("tab", name="Detect").wait_for()
    page.locator("[role=tabpanel]:visible input[type=file]").first.wait_for(state="attached")
    for _ in range(10):  # a browser that is busy forgets that a key was pressed
        reach("Click to upload")
        with contextlib.suppress(playwright.TimeoutError):
            with page.expect_file_chooser(timeout=10_000) as chooser:
                page.keyboard.press("Enter")
            break
    chooser.value.set_files(str(photos[0]))
    page.locator(IMAGES).first.wait_for()
    press("End", "range slider", NOTHING_FOUND)
    press("Space", "Masks", f"!{script('checked')}")
    playwright.expect(page.get_by_label("Masks").first).not_to_be_checked()


@pytest.mark.slow
@pytest.mark.parametrize(
    "title", ["Detect", "Segment", "Classify", "CLIP", "Video", "Compare", "Runs"]
)
def test_pages_fit_and_have_contrast_and_labels(page, photos, title):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.get_by_role("tab", name=title).click()
    if title == "Video":
        page.locator(".examples:visible button").first.click()
        page.locator(IMAGES).first.wait_for()
    elif title != "Runs":
        show(page, title, photos[0])
    for width in (1200, 400):
        page.set_viewport_size({"width": width, "height": 800})
        if title == "Runs":
            page.locator(".runs summary").first.click()
        for _ in range(10):  # gradio fades what is computed again
            found = axe.run(page, options={"runOnly": AXE}).response["violations"]
            if not found:
                break
            page.wait_for_timeout(500)
        assert not [(one["id"], one["nodes"][0]["html"][:300]) for one in found]
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("name", ["hf:owner/name:train", "torchvision:MNIST:data"])
def test_a_dataset_of_another_library_is_not_opened_for_examples(name, tmp_path, monkeypatch):
    from eva_app import examples
    from eva_app.command import Source

    opened = []
    monkeypatch.setattr(examples, "open_labelled", lambda *words, **_: opened.append(words))
    data = {"train": "photos", "val": name, "val_share": 0}
    (tmp_path / "config.json").write_text(json.dumps({"data": data}))
    (tmp_path / "checkpoints").mkdir()
    assert examples.find_examples(Source("classification", str(tmp_path))) == []
    assert not opened


def test_images_that_cannot_be_read_are_no_examples(tmp_path):
    from eva_app.command import Source
    from eva_app.examples import find_examples

    for name in ("1", "2"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "a.png").write_bytes(b"no image")
    data = {"train": "photos", "val": str(tmp_path / "photos"), "val_share": 0}
    (tmp_path / "config.json").write_text(json.dumps({"data": data}))
    (tmp_path / "checkpoints").mkdir()
    assert find_examples(Source("classification", str(tmp_path))) == []
