"""Machines without a network: one attempt, one sentence, and how the file comes there."""

import contextlib
import re
import socket
import threading

import pytest

from eva_backbone.checkpoints.hub import client, reachable
from eva_backbone.checkpoints.registry import resolve_source

NAME = "eva_psz14to16.pt"
SOURCES = [NAME, "hf://someone/eva-mine/model.pt"]


@pytest.fixture
def endpoint(hub, tmp_path, monkeypatch):
    """Function: let the hub be at another port of this machine; the library is not to be asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reachable, "CONNECT_SECONDS", 0.2)
    asked = []
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_, **__: asked.append(1))
    monkeypatch.setattr("huggingface_hub.utils.build_hf_headers", lambda **_: asked.append(1))

    def move(port):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
        return asked

    return move


@pytest.fixture
def full():
    """Port where connections are not refused and never come about: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.fixture
def closed():
    """Port that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _refused(source):
    with pytest.raises(FileNotFoundError) as caught:
        resolve_source(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("source", SOURCES)
def test_a_refused_connection(hub, endpoint, closed, source):
    asked = endpoint(closed)
    message = _refused(source)
    assert f"http://127.0.0.1:{closed} cannot be reached (Connection refused)" in message
    assert f"`eva weights get {source}` on a machine with a network" in message
    assert message.endswith("; --no-download does not try")
    assert asked == []
    if source == NAME:
        assert f"and a copy to {hub.weights}" in message
        assert "hf download BAAI/EVA" in message


@pytest.mark.parametrize("source", SOURCES)
def test_silence(endpoint, full, source):
    asked = endpoint(full)
    message = _refused(source)
    assert "cannot be reached (no answer within 0.2 s; HF_HUB_ETAG_TIMEOUT=30 waits" in message
    assert asked == []


def test_switched_off_nothing_is_tried(endpoint, full, monkeypatch):
    endpoint(full)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(client, "why_unreachable", None)
    message = _refused(NAME)
    assert "switched off (HF_HUB_OFFLINE=1)" in message
    assert "does not try" not in message


def test_a_connection_without_an_answer_is_one_attempt(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(client, "LOOK_UP_SECONDS", 0.2)
    monkeypatch.setattr(reachable, "CONNECT_SECONDS", 0.2)
    with contextlib.suppress(ImportError, AttributeError):  # the library's own question
        monkeypatch.setattr("huggingface_hub.utils._detect_agent._REGISTRY_FETCH_TIMEOUT", 0.1)
    asked, kept = [], []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def read():
            with contextlib.suppress(OSError):
                while True:
                    kept.append(listener.accept()[0])
                    asked.append(kept[-1].recv(4))

        port = listener.getsockname()[1]
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            f"http://127.0.0.1:{port}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        )
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        assert "cannot be reached or broke off" in _refused(NAME)
        listener.shutdown(socket.SHUT_RDWR)
    reader.join()
    for one in kept:
        one.close()
    assert asked.count(b"HEAD") == 1


def test_a_name_that_nobody_resolves(monkeypatch):
    error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(error))
    assert reachable.why_unreachable("https://a.invalid") == "Name or service not known"


def test_a_name_server_that_is_silent(monkeypatch):
    done = threading.Event()
    monkeypatch.setattr(reachable, "CONNECT_SECONDS", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: done.wait(20) and [])
    assert reachable.why_unreachable("https://a.invalid").startswith("no answer within 0.1 s")
    done.set()


@pytest.mark.parametrize("others", ["silent first", "without IPv6"])
def test_one_of_the_addresses_is_enough(hub, full, monkeypatch, others):
    monkeypatch.setenv("NO_PROXY", "*")
    port = int(hub.url.rpartition(":")[2])
    kind = (socket.SOCK_STREAM, 0, "")
    first = (socket.AF_INET, *kind, ("127.0.0.1", full))
    if others == "without IPv6":
        first = (12345, *kind, ("::1", port))  # no such family
    found = [first, (socket.AF_INET, *kind, ("127.0.0.1", port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert reachable.why_unreachable("https://a.invalid") == ""


def test_a_proxy_is_what_has_to_be_reached(hub, closed, monkeypatch):
    assert reachable.why_unreachable(f"http://127.0.0.1:{closed}") == "Connection refused"
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", hub.url)
    assert reachable.why_unreachable("http://a.invalid/x") == ""
    monkeypatch.setenv("https_proxy", f"127.0.0.1:{closed}")
    assert reachable.why_unreachable("https://a.invalid/x") == "Connection refused"


@pytest.mark.parametrize("form", ["127.0.0.1", "127.0.0.1:{}", "127.0.0.0/8"])
def test_a_server_that_may_be_meant_by_no_proxy(hub, closed, monkeypatch, form):
    """The library connects to it directly, and the proxy may lead elsewhere."""
    monkeypatch.setenv("no_proxy", form.format(hub.url.rpartition(":")[2]))
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed}")
    assert reachable.why_unreachable(hub.url) == ""
    monkeypatch.setenv("http_proxy", hub.url)
    assert reachable.why_unreachable(f"http://127.0.0.1:{closed}") == ""


@pytest.mark.parametrize(
    ("value", "seconds"), [("30", 30.0), ("0.5", 0.5), ("", 2.0), ("x", 2.0), ("0", 2.0)]
)
def test_patience_is_a_setting(monkeypatch, value, seconds):
    monkeypatch.setenv(reachable.VARIABLE, value)
    assert reachable.patience() == seconds


def test_open_clip_is_offline_without_a_network(hub, closed, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{closed}")
    from huggingface_hub import constants

    with client.obedient() as reason:
        assert re.search(r"cannot be reached \(Connection refused\)", reason)
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    with client.obedient() as reason:
        assert reason == ""
        assert not constants.HF_HUB_OFFLINE
