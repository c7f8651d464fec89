"""A tuned model leaves its run: merged into its base, or pushed to a private hub repository.

What is pushed is an allow-list. Its text files are read once and searched for who and where you
are; those very bytes are sent, in one commit.
"""

import getpass
import json
import os
import re
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when huggingface_hub is imported

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError, RepositoryNotFoundError

from fim import FimError
from finetune.card.page import is_hub_id, model_card
from finetune.model import (
    load_tuned,
    read_run,
    save_tuned,
    tuned_folder,
)
from finetune.progress import first_line
from finetune.recipe.corpus import SOURCE_KINDS
from finetune.recipe.schema import Recipe
from finetune.samples.tokenizer import load_format, load_tokenizer
from finetune.store import MANIFEST, is_done, read_json, stage_folder, write_manifest

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
    "merges.txt", "tokenizer.model",
)  # fmt: skip
ADAPTER_FILES = ("adapter_config.json", "generation_config.json", *TOKENIZER_FILES)
MODEL_FILES = (
    "config.json", "generation_config.json", "model.safetensors.index.json", *TOKENIZER_FILES,
)  # fmt: skip
VOCABULARIES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model")
"""Lists of words: any user name can be one of them, so they are searched for paths and tokens."""
NOBODY = frozenset(
    "admin administrator app base build builder ci code data debian dev docker ec2-user git guest "
    "host jenkins jovyan localhost main model node nobody python root runner server test train "
    "ubuntu user vscode worker".split()
)
"""User and host names that identify nobody."""
_MAX_HEADER_BYTES = 100_000_000
_STATUS = {
    401: "the hub does not accept the token; renew HF_TOKEN or run: hf auth login",
    403: "the token may not write there; it needs the write right on {to}",
    404: "no such organization or repository for this token; check ORG/NAME",
    409: "exists, but the token may not see it; choose another NAME",
}


def push(run: Path, to: str, *, public: bool = False) -> str:
    """Upload the adapter or model of a run as one commit, to a private repository.

    The token comes from `HF_TOKEN` or the hub's login. An existing repository keeps its visibility.

    Args:
        run: a run folder.
        to: repository of the hub, `ORG/NAME`; created when there is none.
        public: create it public, or accept one that is.

    Returns:
        URL of the repository.

    Raises:
        FimError: the run is not trained, a file names this machine or its user, the repository is
            public, or the hub cannot be reached or says no. Nothing was committed then.
    """
    if not is_hub_id(to):
        raise FimError(f"--to {to!r}: expected ORG/NAME")
    run = Path(os.path.abspath(run))
    recipe = read_run(run)
    folder = tuned_folder(recipe)
    if not (folder / MANIFEST).exists():
        raise FimError(f"{run}: not trained yet; run: sfim train RECIPE")
    full = recipe.model.adapter == "full"
    texts = {
        name: (folder / name).read_bytes()
        for name in (MODEL_FILES if full else ADAPTER_FILES)
        if _is_file(folder / name)
    }
    weights = _weights(folder, full)
    manifest = read_json(folder / MANIFEST)
    known = {name for name in (to, str(manifest.get("base", ""))) if is_hub_id(name)}
    private = _private_things({run, *_recipe_paths(recipe)}, known)
    _refuse_private(texts | {path.name: _read_metadata(path) for path in weights}, private)
    texts["README.md"] = model_card(run, to).encode()
    _refuse_private(texts, private)
    if not is_done(folder, manifest.get("made_from", "")):
        raise FimError(f"{folder}: damaged or changed since training; run: sfim train RECIPE")

    token = get_token()
    if not token:
        raise FimError("no token of the hub; set HF_TOKEN or run: hf auth login")
    constants.HF_HUB_DISABLE_TELEMETRY = True  # for a hub library that was imported before us
    api = HfApi(token=token)
    files = texts | {path.name: path for path in weights}
    with _one_line_errors(to, token):
        _claim_repository(api, to, public)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the hub's advice on a card's metadata
            api.create_commit(
                to,
                [CommitOperationAdd(name, files[name]) for name in sorted(files)],
                commit_message=f"Upload {'model' if full else 'adapter'} with sfim",
            )
    return f"{api.endpoint}/{to}"


def merge(run: Path, out: Path) -> Path:
    """Fold the adapter of a run into its base and write a model folder any server loads.

    Args:
        run: a run folder with an adapter.
        out: a new or empty folder; whole or absent afterwards.

    Returns:
        `out`, absolute.

    Raises:
        FimError: the run has no adapter, `out` is not empty, or the merged weights are no numbers.
    """
    recipe = read_run(Path(os.path.abspath(run)))
    folder, out = tuned_folder(recipe), Path(os.path.abspath(out))
    if recipe.model.adapter == "full":
        raise FimError(f"{run}: every weight was tuned, nothing to merge; the model is {folder}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FimError(f"{out}: exists and is not empty; give a new folder")
    model: Any = load_tuned(recipe)
    tokenizer = load_tokenizer(str(folder))
    form = load_format(tokenizer, recipe.model)
    try:
        merged = model.merge_and_unload(safe_merge=True)
    except ValueError as error:  # NaN or infinite
        raise FimError(f"{folder}: {first_line(error)}; train again") from None
    manifest = read_json(folder / MANIFEST)
    base = manifest.get("base", "")
    with stage_folder(out) as fresh:
        save_tuned(merged, None, fresh, tokenizer, form, base)
        write_manifest(fresh, manifest["made_from"], base=base)
    return out


def _is_file(path: Path) -> bool:
    """Whether a file is there; a link could lead anywhere.

    Raises:
        FimError: it is a link.
    """
    if path.is_symlink():
        raise FimError(f"{path}: a link; only plain files are pushed")
    return path.is_file()


def _weights(folder: Path, full: bool) -> list[Path]:
    """The safetensors to send, at least one."""
    shape = r"model(-\d{5}-of-\d{5})?\.safetensors" if full else r"adapter_model\.safetensors"
    found = [p for p in sorted(folder.iterdir()) if re.fullmatch(shape, p.name) and _is_file(p)]
    if not found:
        raise FimError(f"{folder}: no safetensors there; run: sfim train RECIPE")
    return found


def _read_metadata(path: Path) -> bytes:
    """Return the free text of a safetensors file.

    Raises:
        FimError: it is something else, whatever its name says.
    """
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(size)) if size <= _MAX_HEADER_BYTES else None
        except ValueError:
            header = None
    if not isinstance(header, dict):
        raise FimError(f"{path}: no safetensors file; only safetensors are pushed")
    return json.dumps(header.get("__metadata__", {}), ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Private:
    """Something that must not leave this machine."""

    kind: str
    pattern: re.Pattern[bytes]
    in_vocabularies: bool = True
    """Whether lists of words are searched for it, too."""


def _recipe_paths(recipe: Recipe) -> Iterator[Path]:
    """The places that a recipe names, absolute."""
    places = [recipe.model.name, recipe.model.adapter_from]
    for source in recipe.corpus.sources:
        places += [getattr(source, kind) for kind in SOURCE_KINDS]
    for place in filter(None, places):
        path = Path(os.path.expanduser(place.removeprefix("file://")))
        if path.is_absolute() or path.exists():
            yield Path(os.path.abspath(path))


def _private_things(places: set[Path], known: set[str]) -> list[_Private]:
    """What to search for; names that are part of a `known` hub id are no secret."""
    tokens = {get_token(), os.environ.get("HF_TOKEN"), os.environ.get("HUGGING_FACE_HUB_TOKEN")}
    patterns = [re.escape(token.encode()) for token in sorted(filter(None, tokens))]
    patterns.append(rb"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{30,}")
    found = [_Private(kind="a token of the hub", pattern=re.compile(b"|".join(patterns)))]
    paths = {*places, Path.cwd(), Path(os.path.expanduser("~"))}
    for path in sorted(paths | {path.resolve() for path in paths}):
        if len(path.parts) < 2:
            continue
        # as it is, and as JSON may write it
        forms = {str(path), json.dumps(str(path))[1:-1], str(path).replace("/", "\\/")}
        pattern = b"|".join(re.escape(os.fsencode(form)) for form in sorted(forms))
        found.append(
            _Private(
                kind="an absolute path of this machine",
                pattern=re.compile(rb"(?:" + pattern + rb")(?![A-Za-z0-9_-])"),
                in_vocabularies=len(path.parts) > 2,  # "/root" is a word of many vocabularies
            )
        )
    host = socket.gethostname()
    names = {host: "the name of this machine", host.split(".")[0]: "the name of this machine"}
    for name, kind in {**names, _user_name(): "your user name"}.items():
        pattern = re.compile(
            rb"(?<![A-Za-z0-9_])" + re.escape(os.fsencode(name)) + rb"(?![A-Za-z0-9_])", re.I
        )
        is_known = any(pattern.search(one.encode()) for one in known)
        if len(name) > 2 and name.lower() not in NOBODY and not is_known:
            found.append(_Private(kind=kind, pattern=pattern, in_vocabularies=False))
    return found


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return ""


def _refuse_private(texts: Mapping[str, bytes], things: list[_Private]) -> None:
    """Search every text.

    Raises:
        FimError: something was found; names file and kind, never the thing itself.
    """
    for name, text in sorted(texts.items()):
        for thing in things:
            searched = thing.in_vocabularies or name not in VOCABULARIES
            if searched and thing.pattern.search(text):
                raise FimError(
                    f"{name}: holds {thing.kind}; nothing was sent; take it out and push again"
                )


def _claim_repository(api: HfApi, to: str, public: bool) -> None:
    """Create the repository if need be, and see for ourselves that it is private.

    Raises:
        FimError: it is public and was not asked to be.
    """
    try:
        info = api.model_info(to)
    except RepositoryNotFoundError:
        api.create_repo(to, private=not public)
        info = api.model_info(to)
    if not public and info.private is not True:
        raise FimError(
            f"{to}: is public, and a tuned model can give away the code it was tuned on; "
            "choose another name, make it private, or say --public"
        )


@contextmanager
def _one_line_errors(to: str, token: str) -> Iterator[None]:
    """Turn the errors of the hub into one line that cannot hold the token."""
    try:
        yield
    except FimError:
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code
        text = _STATUS.get(status, f"the hub answered {status}; try again later")
        raise FimError(f"{to}: {text.format(to=to)}") from None
    except (HTTPError, OSError) as error:
        host = urlsplit(constants.ENDPOINT).hostname
        raise FimError(
            f"{to}: cannot reach the hub at {host} ({type(error).__name__}); "
            "check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
        ) from None
    except (ValueError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise FimError(f"{to}: {first.replace(token, '***').rstrip('.')}") from None
