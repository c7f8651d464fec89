"""A hub on 127.0.0.1 that remembers every byte it was sent, and tiny runs to push to it."""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN = "hf_plantedTokenOfTheTest0123456789abcd"


@dataclass
class Request:
    """One request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Repository:
    """A model repository: its files at `main`, and the operations of each commit."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[list[str]] = field(default_factory=list)

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr((self.commits, sorted(self.files))).encode()).hexdigest()


class LoopbackHub:
    """The endpoints that huggingface_hub and peft need to push and to pull a model."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "LoopbackHub":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def sent(self) -> bytes:
        """Everything that came in but the Authorization headers; base64 is decoded as well."""
        parts = []
        for request in self.requests:
            headers = {k: v for k, v in request.headers.items() if k != "authorization"}
            parts += [f"{request.method} {request.path} {headers}".encode(), request.body]
            for encoded in re.findall(rb'"(?:content|sample)": ?"([A-Za-z0-9+/=]*)"', request.body):
                parts.append(base64.b64decode(encoded))
        return b"\n".join(parts)


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def handle_any(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): text for name, text in self.headers.items()}
        self.hub.requests.append(Request(self.command, self.path, headers, body))
        path = self.path.split("?")[0]
        for pattern, name in _ROUTES:
            if found := re.fullmatch(pattern, path):
                getattr(self, name)(body, *found.groups())
                return
        self.answer(404, {"error": "no such endpoint"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def answer(self, status: int, value: object = None, **headers: str) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def allowed(self) -> bool:
        """Whether the token is right; else the request is answered."""
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        bearer = str(self.headers.get("Authorization"))  # a careless hub echoes the secret
        self.answer(401, {"error": bearer}, X_Error_Message=f"Invalid credentials: {bearer}")
        return False

    def repository(self, name: str) -> Repository | None:
        """The repository; else the request is answered."""
        found = self.hub.repositories.get(name)
        if found and (not found.private or self.allowed()):
            return found
        if not found:
            self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        return None

    def whoami(self, body: bytes) -> None:
        if self.allowed():
            self.answer(200, {"type": "user", "name": "acme", "orgs": []})

    def create(self, body: bytes) -> None:
        if not self.allowed():
            return
        value = json.loads(body)
        if value["organization"] == "others":
            self.answer(403, {"error": "You have read access only"})
            return
        name = f"{value['organization']}/{value['name']}"
        if name in self.hub.repositories:
            self.answer(409, {"error": "You already created this model repo"})
            return
        private = value.get("private") is True or value.get("visibility") == "private"
        self.hub.repositories[name] = Repository(private=private)
        self.answer(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def validate_yaml(self, body: bytes) -> None:
        self.answer(200, {"errors": [], "warnings": [{"message": "no license"}]})

    def info(self, body: bytes, name: str) -> None:
        if repository := self.repository(name):
            siblings = [{"rfilename": path} for path in sorted(repository.files)]
            self.answer(
                200,
                {"id": name, "modelId": name, "sha": repository.sha, "private": repository.private,
                 "siblings": siblings, "tags": [], "downloads": 0, "likes": 0},
            )  # fmt: skip

    def tree(self, body: bytes, name: str) -> None:
        if repository := self.repository(name):
            entries = [
                {"type": "file", "path": path, "size": len(data), "oid": _sha1(data)}
                for path, data in sorted(repository.files.items())
            ]
            self.answer(200, entries)

    def preupload(self, body: bytes, name: str) -> None:
        if self.allowed() and self.repository(name):
            files = [
                {"path": file["path"], "shouldIgnore": False, "oid": None,
                 "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular"}
                for file in json.loads(body)["files"]
            ]  # fmt: skip
            self.answer(200, {"files": files})

    def batch(self, body: bytes, name: str) -> None:
        if self.allowed():
            objects = [
                {"oid": one["oid"], "size": one["size"],
                 "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}", "header": {}}}}
                for one in json.loads(body)["objects"]
            ]  # fmt: skip
            self.answer(200, {"objects": objects, "transfer": "basic"})

    def put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.objects[oid] = body
        self.answer(200, {})

    def commit(self, body: bytes, name: str) -> None:
        repository = self.repository(name) if self.allowed() else None
        if repository is None:
            return
        lines = [json.loads(line) for line in body.splitlines()]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.hub.objects[value["oid"]]
        operations = [f"{line['key']} {line['value'].get('path', '')}".strip() for line in lines]
        repository.commits.append(operations)
        url = f"{self.hub.url}/{name}/commit/{repository.sha}"
        self.answer(200, {"success": True, "commitUrl": url, "commitOid": repository.sha})

    def resolve(self, body: bytes, name: str, path: str) -> None:
        if repository := self.repository(name):
            headers = {"X_Repo_Commit": repository.sha}
            data = repository.files.get(path)
            if data is None:
                self.answer(404, b"", X_Error_Code="EntryNotFound", **headers)
            else:
                self.answer(200, data, ETag=f'"{_sha1(data)}"', **headers)


_ID = r"([^/]+/[^/]+)"
_ROUTES = (
    (r"/api/whoami-v2", "whoami"),
    (r"/api/repos/create", "create"),
    (r"/api/validate-yaml", "validate_yaml"),
    (rf"/api/models/{_ID}/preupload/main", "preupload"),
    (rf"/api/models/{_ID}/commit/main", "commit"),
    (rf"/api/models/{_ID}/tree/[^/]+(?:/.*)?", "tree"),
    (rf"/api/models/{_ID}(?:/revision/[^/]+)?", "info"),
    (rf"/{_ID}\.git/info/lfs/objects/batch", "batch"),
    (r"/lfs/(\w+)", "put"),
    (rf"/{_ID}/resolve/[^/]+/(.+)", "resolve"),
)


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


STATS = {
    "documents": {"kept": 1843, "skipped": {"generated": 212, "duplicate": 131}},
    "languages": {"python": 1204, "java": 639},
    "samples": {"psm": 4102, "spm": 0, "ar": 3518},
    "samplers": {"node": 2451, "siblings": 2440},
    "packs": 912,
    "tokens": 7_311_204,
    "utilisation": 0.9787,
    "bytes": 14_802_113,
    "held_out": {"documents": 97},
    "format": "qwen2.5-coder",
}
METRICS = {
    "base": {"n": 400, "files": 97, "exact_match": 0.31, "loss_middle": 0.92, "stop_rate": 0.9},
    "adapter": {"n": 400, "files": 97, "exact_match": 0.372, "loss_middle": 0.81, "stop_rate": 0.9},
    "paired": {
        "exact_match": {"difference": 0.062, "low": 0.021, "high": 0.104},
        "loss_middle": {"difference": -0.11, "low": -0.15, "high": -0.07},
    },
}
SOURCE = "def add(first, second):\n    total = first + second\n    return total\n\n\n"


def make_tokenizer(form: str) -> Any:
    """Train a byte-level BPE that proves a row of `FORMATS`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from fim import FORMATS
    from fim.formats import TOKENIZER_BOS, control_tokens

    row = FORMATS[form]
    tokens = (row.end, row.prefix, row.middle, row.suffix, row.document_end, row.bos, row.file)
    marks = (token for token, there in row.marks.items() if there)
    tokens = dict.fromkeys(
        token
        for token in (*tokens, row.repo, *row.stop, *control_tokens(row), *marks)
        if token not in ("", TOKENIZER_BOS)
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(tokens), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([SOURCE], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=row.end, pad_token=row.end,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def make_base(folder: Path, form: str = "") -> Path:
    """Write a tiny Qwen2 with a byte-level BPE, as a hub would hold it."""
    import torch

    from finetune.recipe.model import Scratch
    from finetune.samples.tokenizer import save_tokenizer, train_tokenizer
    from finetune.training.scratch import make_model

    tokenizer = make_tokenizer(form) if form else train_tokenizer([SOURCE.encode() * 4], 300)
    torch.manual_seed(0)
    scratch = Scratch(
        vocab_size=300, hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64
    )
    make_model(scratch, tokenizer, 256).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


def make_run(
    run: Path, base: Path, adapter: str = "lora", path_header: str = "none", rope_theta: float = 0.0
) -> Path:
    """Write the run folder that training on a private repository would leave."""
    import torch

    from finetune import model as models
    from finetune.recipe.corpus import Corpus, Source
    from finetune.recipe.file import write_recipe
    from finetune.recipe.schema import Fim, Model, Recipe
    from finetune.samples.tokenizer import load_format, load_tokenizer
    from finetune.store import write_json, write_manifest
    from finetune.training.positions import read_positions

    recipe = Recipe(
        name=run.name,
        model=Model(
            name=str(base),
            adapter=adapter,
            lora_r=4,
            lora_alpha=8,
            dtype="float32",
            rope_theta=rope_theta,
        ),
        corpus=Corpus(sources=(Source(git=f"{run.parent}/secret-payments-repo", ref="main"),)),
        fim=Fim(max_length=256, path_header=path_header),
        runs=str(run.parent),
    )
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(write_recipe(recipe))
    tokenizer = load_tokenizer(str(base))
    model = models.load_base(str(base), dtype=torch.float32, rope_theta=rope_theta, max_length=256)
    details = {"positions": read_positions(model.config)} if rope_theta else {}
    torch.manual_seed(1)
    if adapter != "full":
        model = models.add_adapter(model, recipe.model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if adapter == "full" or "lora_B" in name:
                weight.add_(torch.randn_like(weight) * (0.01 if adapter == "full" else 0.5))
    folder = models.tuned_folder(recipe)
    folder.mkdir()
    form = load_format(tokenizer, recipe.model)
    identity = models.base_identity(recipe.model)
    models.save_tuned(model, None, folder, tokenizer, form, identity)
    write_manifest(folder, "0" * 32, base=identity, steps=456, **details)
    write_json(run / "packs" / "stats.json", STATS)
    write_json(run / "metrics.json", METRICS)
    return run
