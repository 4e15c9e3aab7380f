"""Whether a server can be reached at all, found out before a library tries for long."""

import contextlib
import errno
import os
import queue
import selectors
import socket
import threading
import time
from urllib.parse import urlsplit
from urllib.request import getproxies

CONNECT_SECONDS = 2.0
VARIABLE = "HF_HUB_ETAG_TIMEOUT"  # how long huggingface_hub waits for a first answer

_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_BEGUN = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)


def why_unreachable(url: str) -> str:
    """Open one connection to the server of a URL, or to the proxy that leads there.

    Where `NO_PROXY` names any hosts, one of both is enough: programs read it in different ways.

    A name that nobody resolves, and packets that nobody answers, take `CONNECT_SECONDS`, or what
    `HF_HUB_ETAG_TIMEOUT` says. All addresses of a name are tried at the same time: one that is
    silent does not hide another.

    Args:
        url: `http://HOST:PORT/...` or `https://HOST/...`.

    Returns:
        The reason if there is no connection, or "".
    """
    try:
        hops = _next_hops(url)
    except ValueError:
        return ""  # the library says what is wrong with it
    if not all(host and port for host, port in hops):
        return ""
    seconds = patience()
    until = time.monotonic() + seconds
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()

    def ask(host: str, port: int) -> None:
        answers.put(_connect(host, port, until))

    for hop in hops:
        # the system may take much longer to resolve a name, and cannot be interrupted
        threading.Thread(target=ask, args=hop, name="reachable", daemon=True).start()
    reason = ""
    for _ in hops:
        try:
            answer = answers.get(timeout=max(until - time.monotonic(), 0) + 0.1)
        except queue.Empty:
            return _silence(seconds)
        if not answer:
            return ""
        reason = reason or answer
    return reason


def _next_hops(url: str) -> list[tuple[str, int]]:
    place = urlsplit(url)
    proxies = getproxies()
    places = [place]
    if proxy := proxies.get(place.scheme) or proxies.get("all"):
        through = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if not proxies.get("no"):
            places = [through]
        elif "*" not in proxies["no"].replace(" ", "").split(","):
            places = [through, place]
    return [(one.hostname or "", one.port or _PORTS.get(one.scheme, 0)) for one in places]


def patience() -> float:
    """Return the seconds within which a connection has to come about."""
    with contextlib.suppress(ValueError):
        if (asked := float(os.environ.get(VARIABLE, ""))) > 0:
            return asked
    return CONNECT_SECONDS


def _silence(seconds: float) -> str:
    return f"no answer within {seconds:g} s; {VARIABLE}=30 waits for 30 s"


def _connect(host: str, port: int, until: float) -> str:
    """Return "" as soon as one of the addresses answers, or why none does."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return getattr(error, "strerror", None) or str(error)
    reason, sockets = "", {}
    with contextlib.ExitStack() as opened, selectors.DefaultSelector() as waiting:
        for family, kind, protocol, _, address in addresses:
            try:
                one = opened.enter_context(socket.socket(family, kind, protocol))
                one.setblocking(False)
                code = one.connect_ex(address)
            except OSError as error:  # of IPv6 where there is none
                code = error.errno or errno.EADDRNOTAVAIL
            if code in _BEGUN:
                sockets[one.fileno()] = one
                waiting.register(one, selectors.EVENT_WRITE)
            else:
                reason = os.strerror(code)
        while waiting.get_map() and (left := until - time.monotonic()) > 0:
            for key, _ in waiting.select(left):
                waiting.unregister(key.fileobj)
                code = sockets[key.fd].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code:
                    return ""
                reason = os.strerror(code)
        return _silence(patience()) if waiting.get_map() else reason
