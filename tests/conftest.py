"""Tiny real things: tokenizers of every family, models of every architecture, git repositories."""

import json
import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

TEXTS = (
    "def add(first, second):\n    return first + second\n",
    "class Queue:\n    def __init__(self, items):\n        self.items = list(items)\n",
    "for (int index = 0; index < size; index++) {\n\ttotal += values[index];\n}\n",
    'if err != nil {\n\t\treturn nil, fmt.Errorf("read %s: %w", path, err)\n\t}\n',
    "import os\nimport sys\n\n\n# the file path is: src/main.py\nprint('hello', file=sys.stderr)\n",
    "const total = items.map((item) => item.price).reduce((a, b) => a + b, 0);\n",
)
_STARCODER = (
    "<|endoftext|> <fim_prefix> <fim_middle> <fim_suffix> <fim_pad> <filename> <gh_stars> "
    "<reponame>"
)
_STARCODER_2 = (
    "<|endoftext|> <fim_prefix> <fim_middle> <fim_suffix> <fim_pad> <repo_name> <file_sep>"
)
_QWEN = (
    "<|endoftext|> <|im_start|> <|im_end|> -<|fim_prefix|> -<|fim_middle|> -<|fim_suffix|> "
    "-<|fim_pad|> -<|repo_name|> -<|file_sep|>"
)
_DEEPSEEK = (
    "-ü <｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> -<｜fim▁hole｜> -<｜fim▁begin｜> "
    "-<｜fim▁end｜> <|EOT|>"
)
_GLM = (
    "<|endoftext|> [gMASK] <sop> <|system|> <|user|> <|assistant|> <|code_prefix|> <|code_middle|> "
    "<|code_suffix|>"
)
_MISTRAL = "<unk> <s> </s> [INST] [/INST] [PREFIX] [MIDDLE] [SUFFIX]"
# In the order of their ids. A minus is no part of a token: the family does not mark this one as
# special, so `skip_special_tokens` and `split_special_tokens` both pass it over.
ADDED = {
    "qwen2.5-coder": _QWEN,
    "qwen3-coder": f"{_QWEN} -<think> -</think>",
    "codeqwen1.5": f"{_STARCODER_2.replace('repo_name', 'reponame')} <|im_end|>",
    "starcoder2": _STARCODER_2,
    "starcoder": _STARCODER,
    "santacoder": "<|endoftext|> <fim-prefix> <fim-middle> <fim-suffix> <fim-pad>",
    "granite-code": _STARCODER,
    "granite-3.3": _STARCODER.replace("<|endoftext|>", "<|end_of_text|>"),
    "granite-4": "<|end_of_text|> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|>",
    "stable-code": _STARCODER,
    "refact": _STARCODER,
    "mellum": _STARCODER,
    "deepseek-coder": _DEEPSEEK,
    "deepseek-coder-v2": f"{_DEEPSEEK} <｜User｜> <｜Assistant｜>",
    "codellama": "<unk> <s> </s> ▁<PRE> ▁<MID> ▁<SUF> ▁<EOT>",
    "aixcoder": "<unk> <s> </s> ▁<AIX-SPAN-PRE> ▁<AIX-SPAN-MIDDLE> ▁<AIX-SPAN-POST>",
    "codegemma": (
        "<unk> <bos> <eos> -<|fim_prefix|> -<|fim_middle|> -<|fim_suffix|> -<|file_separator|>"
    ),
    "codestral": _MISTRAL,
    "seed-coder": (
        "<[begin▁of▁sentence]> <[end▁of▁sentence]> <[fim-prefix]> <[fim-middle]> <[fim-suffix]>"
    ),
    "glm-4.5": f"{_GLM} <think> </think>",
    "codegeex4": _GLM,
    "incoder": "<|endoftext|> <|endofmask|> <|mask:0|> <|mask:1|> <|mask:2|>",
    "codegen2.5": "<|endoftext|> <mask_1> <mask_2> <sep> <eom>",
    "opencoder": _STARCODER_2,
    "phi-4": (
        "<|endoftext|> -<|fim_prefix|> -<|fim_middle|> -<|fim_suffix|> <|im_start|> <|im_end|> "
        "<|endofprompt|>"
    ),
    "mistral-v3": _MISTRAL,
}
SENTENCEPIECE = {"codellama": "legacy", "codestral": "legacy", "mistral-v3": "legacy",
                 "aixcoder": "first", "codegemma": "none"}  # fmt: skip
"""How a family's SentencePiece puts a blank before a text."""
BOS = {"incoder": "<|endoftext|>", "seed-coder": "<[begin▁of▁sentence]>",
       "codegeex4": "[gMASK] <sop>"}  # fmt: skip
"""What a family's tokenizer itself puts before a text."""


@pytest.fixture(scope="session")
def sentinels() -> list[str]:
    """Every control token that a row of FORMATS names."""
    from fim import FORMATS
    from fim.formats import TOKENIZER_BOS, control_tokens

    tokens = {
        token.strip()
        for row in FORMATS.values()
        for token in (*control_tokens(row), row.end, row.document_end, *row.stop, row.bos, row.pad,
                      row.file, row.file_end, row.repo, *row.marks)
    }  # fmt: skip
    return sorted(tokens - {"", TOKENIZER_BOS})


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """A factory `(family) -> PreTrainedTokenizerFast` for every row of FORMATS."""
    from tokenizers import AddedToken
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    from fim import FORMATS

    @cache
    def make(family: str) -> PreTrainedTokenizerFast:
        blanks = SENTENCEPIECE.get(family)
        backend = _sentencepiece_bpe(blanks) if blanks else _byte_level_bpe()
        for token in ADDED[family].split():
            name = token.removeprefix("-")
            backend.add_tokens([AddedToken(name, special=name == token, normalized=False)])
        if family in BOS:
            tokens = BOS[family].split()
            backend.post_processor = TemplateProcessing(
                single=[*tokens, "$A"], pair=[*tokens, "$A", "$B"],
                special_tokens=[(token, backend.token_to_id(token)) for token in tokens],
            )  # fmt: skip
        end = FORMATS[family].document_end
        return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end, pad_token=end)

    return make


def _byte_level_bpe():
    from tokenizers import Tokenizer

    return Tokenizer.from_str(_byte_level_json())


@cache
def _byte_level_json() -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    return backend.to_str()


def _sentencepiece_bpe(blanks: str):
    from tokenizers import Tokenizer, normalizers, pre_tokenizers
    from tokenizers.decoders import ByteFallback, Fuse, Replace, Sequence, Strip

    backend = Tokenizer.from_str(_sentencepiece_json())
    backend.pre_tokenizer = None
    replace = normalizers.Replace(" ", "▁")
    if blanks == "legacy":  # every text gets a leading blank
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
    elif blanks == "first":  # every text gets one unless it starts with one
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        backend.normalizer = replace
    decode = [Replace("▁", " "), ByteFallback(), Fuse(), Strip(content=" ", left=1)]
    backend.decoder = Sequence(decode if blanks != "none" else decode[:-1])
    return backend


@cache
def _sentencepiece_json() -> str:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=pieces, show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    # byte pieces are entries of the vocabulary in the real files, no added tokens
    return json.dumps(json.loads(backend.to_str()) | {"added_tokens": []})


@pytest.fixture(scope="session")
def tiny_model():
    """A factory `(architecture, vocab_size, **config) -> model` with seeded random weights."""
    import torch
    import transformers

    torch.set_num_threads(1)

    def make(architecture: str, vocab_size: int, seed: int = 0, **fields):
        """Make a model of `"qwen2"`, `"llama"` or `"starcoder2"`, in evaluation mode."""
        name = {"qwen2": "Qwen2", "llama": "Llama", "starcoder2": "Starcoder2"}[architecture]
        sizes = {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
            "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
        }  # fmt: skip
        config = getattr(transformers, f"{name}Config")(vocab_size=vocab_size, **(sizes | fields))
        torch.manual_seed(seed)
        return getattr(transformers, f"{name}ForCausalLM")(config).eval()

    return make


GIT_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_AUTHOR_DATE": "2024-01-02T03:04:05+00:00",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
    "GIT_COMMITTER_DATE": "2024-01-02T03:04:05+00:00",
}


@pytest.fixture(scope="session")
def make_repo():
    """A factory `(folder, files, message="add files") -> Path`; again on one folder: a commit."""

    def make(folder: Path, files: dict[str, bytes], message: str = "add files") -> Path:
        def git(*words: str) -> None:
            command = ["git", "-C", str(folder), *words]
            subprocess.run(
                command, check=True, capture_output=True, env=os.environ | GIT_ENVIRONMENT
            )

        if not (folder / ".git").exists():
            folder.mkdir(parents=True, exist_ok=True)
            git("init", "--quiet", "--initial-branch=main")
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        git("add", "--all")
        git("commit", "--quiet", "--message", message)
        return folder

    return make


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real tokenizers and benchmarks."""
    if "SFIM_TEST_DATA" not in os.environ:
        pytest.skip("SFIM_TEST_DATA is not set: it names the folder with the real tokenizers")
    return Path(os.environ["SFIM_TEST_DATA"])
