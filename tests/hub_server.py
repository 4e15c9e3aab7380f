"""A stand-in of the Hugging Face hub: files of models with ETags and ranges, commits, and faults.

Not a test. It answers what huggingface_hub 2.4 asks over plain HTTP: HEAD and GET of `resolve`, and
for uploads `whoami-v2`, `repos/create`, `preupload`, LFS batches and `commit`.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/(?P<what>\w+)/(?P<revision>[^/]+)")
BRANCH = "main"


class Hub:
    """Files, faults and the requests that came.

    Attributes:
        files: (repository, path) -> bytes.
        cuts: Numbers of bytes after which the next answers to GET break off.
        false: (repository, path) -> content that is sent in place of the true one.
        requests: (method, path, Range) in their order.
        commits: (repository, {path: bytes}, description) of uploads.
        private: Repository -> whether it was made private.
        states: (repository, commit) -> its files, of each commit that was asked about.
    """

    def __init__(self, url):
        self.url, self.token = url, "hf_valid"
        self.files, self.false, self.private = {}, {}, {}
        self.cuts, self.requests, self.commits, self.lfs, self.states = [], [], [], {}, {}

    def files_of(self, repo):
        return {path: data for (one, path), data in self.files.items() if one == repo}

    def commit(self, repo):
        files = self.files_of(repo)
        state = sorted((path, hashlib.sha1(data).hexdigest()) for path, data in files.items())
        commit = hashlib.sha1(repr((repo, state)).encode()).hexdigest()
        self.states[repo, commit] = files
        return commit

    def gets(self, path=""):
        """Ranges of the requests for content."""
        found = [one for one in self.requests if one[0] == "GET" and "/resolve/" in one[1]]
        return [span for _, asked, span in found if path in asked]

    def put(self, repo, path, content):
        self.files[repo, path] = content
        return hashlib.sha256(content).hexdigest()

    def use(self, folder, monkeypatch):
        """Point huggingface_hub and the toolkit to this server and to empty folders."""
        from huggingface_hub import constants, file_download
        from huggingface_hub.utils import _http

        self.weights, cache = folder / "weights", folder / "hub" / "cache"
        variables = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(folder / "hub"),
            "HF_HUB_CACHE": str(cache),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HOME": str(folder / "home"),
            "EVA_WEIGHTS": str(self.weights),
            "HF_HUB_DOWNLOAD_TIMEOUT": "60",  # of a process that waits for the test
            "NO_PROXY": "127.0.0.1",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        for name in ("EVA_NO_DOWNLOAD", "HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        values = {
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(cache),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_TOKEN_PATH": str(folder / "hub" / "token"),
            "DOWNLOAD_CHUNK_SIZE": 10_000,
        }
        for name, value in values.items():
            monkeypatch.setattr(constants, name, value)
        patient = SimpleNamespace(sleep=lambda seconds: None)
        monkeypatch.setattr(file_download, "time", patient)
        monkeypatch.setattr(_http, "time", patient)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self._resolve(content=False)

    def do_GET(self):
        hub, path = self.server.hub, urlsplit(self.path).path
        if path == "/api/whoami-v2":
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self._answer(401, {"error": "Invalid credentials"})
            return self._answer(200, {"name": "someone", "type": "user", "orgs": []})
        tree = API.fullmatch(path)
        if tree and tree["what"] == "tree":
            files = hub.files_of(tree["repo"])
            return self._answer(200, [
                {"type": "file", "path": file, "size": len(data), "oid": "0" * 40}
                for file, data in files.items()
            ])  # fmt: skip
        if path.startswith("/api/models/"):
            repo = path.removeprefix("/api/models/")
            if repo not in hub.private:
                code = {"X-Error-Code": "RepoNotFound"}
                return self._answer(404, {"error": "no such repository"}, code)
            return self._answer(200, {"id": repo, "private": hub.private[repo]})
        return self._resolve(content=True)

    def do_POST(self):
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.requests.append(("POST", path, None))
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._answer(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            if repo in hub.private:
                return self._answer(409, {"url": f"{hub.url}/{repo}"})
            private = asked.get("private", asked.get("visibility") == "private")
            hub.private[repo] = bool(private)
            return self._answer(200, {"url": f"{hub.url}/{repo}", "name": repo})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {"oid": one["oid"], "size": one["size"], "actions": {
                    "upload": {"href": f"{hub.url}/lfs/{one['oid']}", "header": {}}}}
                for one in json.loads(body)["objects"]
            ]  # fmt: skip
            return self._answer(200, {"transfer": "basic", "objects": objects})
        found = API.fullmatch(path)
        if found and found["what"] == "preupload":
            files = [
                {"path": one["path"], "shouldIgnore": False, "oid": None,
                 "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular"}
                for one in json.loads(body)["files"]
            ]  # fmt: skip
            return self._answer(200, {"files": files, "commitOid": hub.commit(found["repo"])})
        if found and found["what"] == "commit":
            return self._commit(found["repo"], body)
        if path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        return self._answer(404, {"error": f"no {path}"})

    def do_PUT(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.hub.lfs[self.path.rpartition("/")[2]] = data
        return self._answer(200, {})

    def _commit(self, repo, body):
        hub, files, description = self.server.hub, {}, ""
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "header":
                description = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = hub.lfs[value["oid"]]
            elif line["key"] == "deletedFile":
                del hub.files[repo, value["path"]]
        hub.commits.append((repo, files, description))
        hub.files |= {(repo, path): data for path, data in files.items()}
        oid = hub.commit(repo)
        self._answer(200, {"commitUrl": f"{hub.url}/{repo}/commit/{oid}", "commitOid": oid})

    def _answer(self, status, content, headers=()):
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in [*dict(headers).items(), ("Content-Type", "application/json"),
                            ("Content-Length", len(data))]:  # fmt: skip
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _resolve(self, *, content):
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        span = self.headers.get("Range")
        found = RESOLVE.fullmatch(path)
        if found is None:  # such as the library's own questions, once in a process
            return self._answer(404, {"error": path})
        hub.requests.append((self.command, path, span))
        repo, revision, file = found["repo"], found["revision"], found["file"]
        if not any(repo == one for one, _ in hub.files):
            return self._answer(401, {"error": "RepoNotFound"}, {"X-Error-Code": "RepoNotFound"})
        commit = hub.commit(repo)
        if revision in (BRANCH, "v1"):
            files = hub.files_of(repo)
        else:
            commit, files = revision, hub.states.get((repo, revision))
        if files is None:
            code = {"X-Error-Code": "RevisionNotFound"}
            return self._answer(404, {"error": "revision"}, code)
        if file not in files:
            more = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
            return self._answer(404, {"error": "entry"}, more)
        digest = hashlib.sha256(files[file]).hexdigest()
        data = hub.false.get((repo, file), files[file])
        start = int(re.fullmatch(r"bytes=(\d+)-", span)[1]) if span else 0
        self.send_response(206 if span else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(data)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if span:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        return self._send(data[start:]) if content else None

    def _send(self, data):
        hub = self.server.hub
        if hub.cuts:
            data = data[: hub.cuts.pop(0)]
            self.close_connection = True
        with contextlib.suppress(ConnectionError):
            self.wfile.write(data)


@contextlib.contextmanager
def serving():
    """Serve an empty hub on a free port of the loopback address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.hub = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
