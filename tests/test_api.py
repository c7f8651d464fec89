"""What the design promises to callers of `fim`."""

import subprocess
import sys
from pathlib import Path

import fim


def test_the_contract_runs_as_written(tiny_tokenizer):
    tokenizer = tiny_tokenizer("qwen2.5-coder")
    text = b"def add(first, second):\n    return first + second\n" * 500

    document = fim.Document(repo="acme", path="src/a.py", language="python", text=text)
    policy = fim.SpanPolicy()
    samples = list(fim.make_samples(document, policy, window_bytes=12_000, fim_rate=0.7,
                                    orders={"psm": 0.5, "spm": 0.5}, seed=0, epoch=0))  # fmt: skip
    form = fim.resolve_format(tokenizer)
    tokens = [
        fim.encode(sample, form, tokenizer, max_length=4096, loss="all", context=())
        for sample in samples
    ]
    bins = fim.pack_lengths([len(t.input_ids) for t in tokens], capacity=4096)

    assert [sample.window for sample in samples] == list(range(len(samples)))
    assert sorted(index for bin_ in bins for index in bin_) == list(range(len(samples)))
    packs = [fim.pack([tokens[index] for index in bin_]) for bin_ in bins]
    assert all(sum(pack.seq_lengths) == len(pack.input_ids) <= 4096 for pack in packs)
    assert len(fim.position_ids(packs[0].seq_lengths)) == len(packs[0].input_ids)
    assert fim.block_mask((2, 1), 4).shape == (4, 4)
    assert fim.resolve_format(tokenizer, name="qwen2.5-coder") == form
    assert "python" in fim.LANGUAGES
    assert "qwen2.5-coder" in fim.FORMATS


def test_what_is_exported_is_what_is_defined():
    modules = {path.stem for path in Path(fim.__file__).parent.glob("*.py")}

    public = {name for name in vars(fim) if not name.startswith("_")} - modules

    assert set(fim.__all__) == public
    assert len(fim.__all__) == len(set(fim.__all__)) == 38
    assert all(getattr(fim, name) is not None for name in fim.__all__)


def test_importing_and_sampling_load_neither_torch_nor_transformers():
    program = """
import sys
import fim
document = fim.Document(repo="r", path="a.py", language="python", text=b"x = f(1, 2)\\n")
list(fim.make_samples(document, fim.SpanPolicy(), window_bytes=9, fim_rate=1.0,
                      orders={"psm": 1.0}, seed=0, epoch=0))
heavy = {"torch", "transformers", "tokenizers", "datasets", "peft", "accelerate", "finetune"}
print(sorted(heavy & sys.modules.keys()))
"""

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"


def test_errors_are_value_errors():
    assert issubclass(fim.TooLong, fim.FimError)
    assert issubclass(fim.FimError, ValueError)
