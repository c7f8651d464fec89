"""From a folder of code to packs in memory, with any tokenizer that has FIM sentinels.

    python examples/pack_a_folder.py fim recipes/tiny-base

Prints how full the packs are, and proves that sentinel strings in the code stay text.
"""

import sys
from pathlib import Path

from transformers import AutoTokenizer

import fim

MAX_LENGTH = 2_048


def main(folder: str, tokenizer_name: str) -> None:
    """Sample, encode and pack every supported file of a folder."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_name)
    form = fim.resolve_format(tokenizer)
    tokens = []
    for path in sorted(Path(folder).rglob("*")):
        text = path.read_bytes() if path.is_file() else b""
        language = fim.detect_language(path.name, text) if text else None
        if language is None:
            continue
        document = fim.Document(repo=folder, path=path.as_posix(), language=language, text=text)
        for sample in fim.make_samples(
            document, fim.SpanPolicy(), window_bytes=6_000, fim_rate=0.7,
            orders=form.row.trained, seed=0, epoch=0,
        ):  # fmt: skip
            tokens.append(fim.encode(sample, form, tokenizer, max_length=MAX_LENGTH))
    bins = fim.pack_lengths([len(t.input_ids) for t in tokens], capacity=MAX_LENGTH)
    packs = [fim.pack([tokens[i] for i in indices]) for indices in bins]
    used = sum(len(pack.input_ids) for pack in packs)
    print(f"{form.name}: {len(tokens)} samples in {len(packs)} packs")
    print(f"utilisation {used / (len(packs) * MAX_LENGTH):.2%}")
    text = form.row.prefix.encode()
    ids = fim.content_tokenizer(tokenizer).encode(text)
    print(f"{form.row.prefix} in code becomes {len(ids)} ordinary tokens")


if __name__ == "__main__":
    main(*(sys.argv[1:3] if len(sys.argv) > 2 else ["fim", "recipes/tiny-base"]))
