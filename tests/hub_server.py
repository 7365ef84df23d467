"""A Hub on the loopback interface: what huggingface_hub, transformers and datasets ask of the real one, from memory.

with HubServer() as hub:
    ...  # clients in processes with HF_ENDPOINT=hub.url, HF_TOKEN=hub.token and HF_HUB_DISABLE_XET=1
    hub.files("org/fcn-8s")["README.md"]
"""

import base64
import hashlib
import json
import re
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

USER, ORGANISATION = "tester", "org"
HARDWARE = ("cpu-basic", "cpu-upgrade", "zero-a10g", "t4-small")
LARGE = (".safetensors", ".parquet", ".png", ".bin", ".pt")

API = "/api/(?P<kind>models|datasets|spaces)/(?P<repo_id>[^/]+(?:/[^/]+)?)"
WEB = "/(?:(?P<kind>datasets|spaces)/)?(?P<repo_id>[^/]+(?:/[^/]+)?)"
BRANCH, COMMIT, PATH = "(?P<branch>[^/]+)", "(?P<commit>[^/]+)", "(?P<path>.+)"
# Request, the method of `Handler` that answers it, and whether it takes the right to write.
ROUTES = [
    ("GET", "/api/whoami-v2", "whoami", False),
    ("GET", "/api/agent-harnesses", "no_objections", False),
    ("POST", "/api/validate-yaml", "no_objections", False),
    ("POST", "/api/repos/create", "create_repo", False),
    ("POST", f"{API}/branch/{BRANCH}", "create_branch", True),
    ("POST", f"{API}/preupload/{COMMIT}", "announce_files", True),
    ("POST", rf"{WEB}\.git/info/lfs/objects/batch", "announce_large_files", True),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]+)", "take_large_file", False),
    ("POST", f"{API}/commit/{BRANCH}", "make_commit", True),
    ("POST", f"{API}/paths-info/{COMMIT}", "describe_paths", False),
    ("GET", f"{API}/tree/{COMMIT}(?:/{PATH})?", "list_folder", False),
    ("GET", f"{WEB}/resolve/{COMMIT}/{PATH}", "send_file", False),
    ("GET", f"{API}/runtime", "describe_runtime", False),
    ("POST", f"{API}/hardware", "set_hardware", True),
    ("GET", f"{API}/variables", "describe_variables", True),
    ("POST", f"{API}/(?P<settings>variables|secrets)", "add_setting", True),
    ("DELETE", f"{API}/(?P<settings>variables|secrets)", "delete_setting", True),
    # The last one, as what others have behind a repo's id could be the second half of an id as well.
    ("GET", f"{API}(?:/revision/{COMMIT})?", "describe_repo", False),
]


def content_id(path: str, data: bytes) -> str:
    """What the Hub tells contents apart by: SHA-256 of large files, git's own SHA-1 of others."""
    if path.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass(frozen=True)
class Commit:
    message: str
    files: dict[str, bytes]
    oid: str = field(default_factory=lambda: hashlib.sha1(uuid.uuid4().bytes).hexdigest())


class Repo:
    """Branches, each a list of commits, oldest first. The first commit is the server's own, as on the Hub.

    A Space has hardware, variables and secrets besides.
    """

    def __init__(self, kind: str, repo_id: str, private: bool):
        self.id, self.private = repo_id, private
        self.address = repo_id if kind == "models" else f"{kind}/{repo_id}"
        self.branches = {"main": [Commit("initial commit", {})]}
        self.hardware = HARDWARE[0]
        self.settings: dict[str, dict[str, str]] = {"variables": {}, "secrets": {}}


class HubServer:
    """
    Attributes:
        url, token: for HF_ENDPOINT and HF_TOKEN. The token's owner is "tester", who may also write to "org".
        breaks: where connections break off, such as `{"lfs": 2}`: from the second upload of a large file on. Besides
            "lfs" there are "commit", before it is made, and "answer", when it is made but the client not told.
        unknown: requests that this server has no answer to.
        repos, blobs: repos by kind ("models", "datasets", "spaces") and id; large files by SHA-256.
    """

    def __init__(self):
        self.token = "hf_loopback"
        self.breaks: dict[str, int] = {}
        self.unknown: list[str] = []
        self.repos: dict[tuple[str, str], Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.lock = Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.hub = self
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "HubServer":
        Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add_repo(self, repo_id: str, kind: str = "models", private: bool = False) -> Repo:
        return self.repos.setdefault((kind, repo_id), Repo(kind, repo_id, private))

    def commits(self, repo_id: str, kind: str = "models", branch: str = "main") -> list[Commit]:
        return list(self.repos[kind, repo_id].branches[branch])

    def files(self, repo_id: str, kind: str = "models", branch: str = "main") -> dict[str, bytes]:
        """What the last commit holds: path -> content."""
        return self.commits(repo_id, kind, branch)[-1].files


class Refused(Exception):
    def __init__(self, status: int, message: str, code: str = "", **headers: str):
        super().__init__(message)
        self.status, self.headers = status, {"X-Error-Message": message, "X-Error-Code": code, **headers}


def known_hardware(name: str) -> str:
    if name not in HARDWARE:
        raise Refused(400, f"There is no hardware {name}")
    return name


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.hub: HubServer = self.server.hub
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, method = urlsplit(self.path).path, "GET" if self.command == "HEAD" else self.command
        try:
            for verb, pattern, name, write in ROUTES:
                if verb == method and (found := re.fullmatch(pattern, path)):
                    slots = {slot: unquote(value) for slot, value in found.groupdict().items() if value}
                    return getattr(self, name)(**self.look_up(slots, write))
            self.hub.unknown.append(f"{self.command} {self.path}")
            raise Refused(501, f"The loopback Hub has no route {self.command} {self.path}.")
        except Refused as refused:
            self.send({"error": str(refused)}, refused.status, refused.headers)
        except ConnectionAbortedError:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, *args: object) -> None:
        """Nothing: tests have no use for a line about each request."""

    def send(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def look_up(self, slots: dict[str, Any], write: bool) -> dict[str, Any]:
        """A route's arguments, with the repo and the commit in the place of their names, if the token allows it."""
        sent = self.headers.get("Authorization")
        self.known = sent == f"Bearer {self.hub.token}"
        if sent and not self.known:
            raise Refused(401, "Invalid credentials in Authorization header")
        if repo_id := slots.pop("repo_id", None):
            repo = slots["repo"] = self.hub.repos.get((slots.pop("kind", "models"), repo_id))
            if repo is None or (repo.private and not self.known):
                # The Hub doesn't tell strangers which names are taken.
                raise Refused(404 if self.known else 401, "Repository not found, or no right to see it", "RepoNotFound")
            if write:
                self.check_may_write(repo_id)
            if revision := slots.get("commit"):
                by_id = {commit.oid: [commit] for commits in repo.branches.values() for commit in commits}
                if revision not in {**by_id, **repo.branches}:
                    raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
                slots["commit"] = {**by_id, **repo.branches}[revision][-1]
        return slots

    def check_may_write(self, repo_id: str) -> None:
        if not self.known:
            raise Refused(401, "Invalid username or password.")
        if repo_id.partition("/")[0] not in (USER, ORGANISATION):
            raise Refused(403, f"You don't have the rights to write to {repo_id}")

    def break_off(self, place: str) -> None:
        with self.hub.lock:
            if place in self.hub.breaks:
                self.hub.breaks[place] -= 1
                if self.hub.breaks[place] <= 0:
                    raise ConnectionAbortedError

    def whoami(self) -> None:
        self.check_may_write(USER)
        self.send({"type": "user", "name": USER, "orgs": [{"name": ORGANISATION}]})

    def no_objections(self) -> None:
        self.send({})

    def create_repo(self) -> None:
        wanted = json.loads(self.body)
        kind, repo_id = f"{wanted.get('type', 'model')}s", f"{wanted.get('organization') or USER}/{wanted['name']}"
        self.check_may_write(repo_id)
        status = 409 if (kind, repo_id) in self.hub.repos else 200
        private = bool(wanted.get("private") or wanted.get("visibility") == "private")
        hardware = known_hardware(wanted.get("hardware") or HARDWARE[0])
        repo = self.hub.add_repo(repo_id, kind, private)
        if status == 200:
            repo.hardware = hardware
        self.send({"url": f"{self.hub.url}/{repo.address}"}, status)

    def create_branch(self, repo: Repo, branch: str) -> None:
        status = 409 if branch in repo.branches else 200
        repo.branches.setdefault(branch, repo.branches["main"][-1:])
        self.send({}, status)

    def announce_files(self, repo: Repo, commit: Commit) -> None:
        files = []
        for path in (file["path"] for file in json.loads(self.body)["files"]):
            oid = content_id(path, commit.files[path]) if path in commit.files else None
            mode = "lfs" if path.endswith(LARGE) else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.send({"files": files})

    def announce_large_files(self, repo: Repo) -> None:
        objects = json.loads(self.body)["objects"]
        for item in objects:
            if item["oid"] not in self.hub.blobs:
                item["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}"}}
        self.send({"transfer": "basic", "objects": objects})

    def take_large_file(self, oid: str) -> None:
        self.break_off("lfs")
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, f"The content's SHA-256 is not {oid}.")
        self.hub.blobs[oid] = self.body
        self.send({})

    def make_commit(self, repo: Repo, branch: str) -> None:
        self.break_off("commit")
        with self.hub.lock:
            files, message = dict(repo.branches[branch][-1].files), ""
            for key, value in (json.loads(line).values() for line in self.body.splitlines()):
                path = value.get("path")
                if key == "header":
                    message = value["summary"]
                elif key == "file":
                    files[path] = base64.b64decode(value["content"])
                elif key == "lfsFile" and value["oid"] in self.hub.blobs:
                    files[path] = self.hub.blobs[value["oid"]]
                elif key == "deletedFile" and path in files:
                    del files[path]
                else:
                    raise Refused(400, f"{key} can't be done for {path}")
            made = Commit(message, files)
            repo.branches[branch].append(made)
        self.break_off("answer")
        self.send({"commitUrl": f"{self.hub.url}/{repo.address}/commit/{made.oid}", "commitOid": made.oid})

    def entries(self, commit: Commit) -> dict[str, dict[str, Any]]:
        """Files and folders as listings give them."""
        entries: dict[str, dict[str, Any]] = {}
        for path, data in sorted(commit.files.items()):
            for folder in (path[: slash.start()] for slash in re.finditer("/", path)):
                entries[folder] = {"type": "directory", "path": folder, "oid": folder, "size": 0}
            oid, size = content_id(path, data), len(data)
            lfs = {"lfs": {"oid": oid, "size": size, "pointerSize": 134}} if path.endswith(LARGE) else {}
            entries[path] = {"type": "file", "path": path, "oid": oid, "size": size, **lfs}
        return entries

    def list_folder(self, repo: Repo, commit: Commit, path: str = "") -> None:
        entries, inside = self.entries(commit), f"{path}/" if path else ""
        if path and path not in entries:
            raise Refused(404, f"{path} does not exist", "EntryNotFound")
        below = {name.removeprefix(inside): entry for name, entry in entries.items() if name.startswith(inside)}
        deep = "recursive=true" in urlsplit(self.path).query.lower()
        self.send([entry for name, entry in below.items() if deep or "/" not in name])

    def describe_paths(self, repo: Repo, commit: Commit) -> None:
        entries = self.entries(commit)
        self.send([entries[path] for path in parse_qs(self.body.decode()).get("paths", []) if path in entries])

    def send_file(self, repo: Repo, commit: Commit, path: str) -> None:
        headers = {"X-Repo-Commit": commit.oid}
        if path not in commit.files:
            raise Refused(404, "Entry not found", "EntryNotFound", **headers)
        data = commit.files[path]
        headers["ETag"] = f'"{content_id(path, data)}"'
        if path.endswith(LARGE):
            headers |= {"X-Linked-ETag": headers["ETag"], "X-Linked-Size": str(len(data))}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return self.send(data, headers=headers)
        first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
        self.send(data[first : last + 1], 206, headers | {"Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def describe_runtime(self, repo: Repo) -> None:
        self.send({"stage": "BUILDING", "hardware": {"current": None, "requested": repo.hardware}})

    def set_hardware(self, repo: Repo) -> None:
        repo.hardware = known_hardware(json.loads(self.body)["flavor"])
        self.describe_runtime(repo)

    def describe_variables(self, repo: Repo) -> None:
        self.send({key: {"value": value} for key, value in repo.settings["variables"].items()})

    def add_setting(self, repo: Repo, settings: str) -> None:
        asked = json.loads(self.body)
        repo.settings[settings][asked["key"]] = asked["value"]
        self.describe_variables(repo)

    def delete_setting(self, repo: Repo, settings: str) -> None:
        del repo.settings[settings][json.loads(self.body)["key"]]
        self.describe_variables(repo)

    def describe_repo(self, repo: Repo, commit: Commit | None = None) -> None:
        commit = commit or repo.branches["main"][-1]
        files = [{"rfilename": path, "size": len(data)} for path, data in sorted(commit.files.items())]
        self.send({"id": repo.id, "sha": commit.oid, "private": repo.private, "tags": [], "siblings": files})
