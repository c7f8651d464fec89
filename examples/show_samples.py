"""What a model would be asked to learn from a file, without a model.

    python examples/show_samples.py fim/spans.py

Prints the samples of three epochs with the MIDDLE between <<< and >>>: new spans every epoch, the
same ones whenever it is run.
"""

import sys
from pathlib import Path

import fim


def main(path: str) -> None:
    """Print the samples drawn from one file."""
    text = Path(path).read_bytes()
    language = fim.detect_language(path, text)
    if language is None:
        sys.exit(f"{path}: no language with that name; known: {', '.join(fim.LANGUAGES)}")
    document = fim.Document(repo="example", path=path, language=language, text=text)
    for epoch in range(3):
        for sample in fim.make_samples(
            document, fim.SpanPolicy(), window_bytes=4_000, fim_rate=0.7,
            orders={"psm": 0.5, "spm": 0.5}, seed=0, epoch=epoch,
        ):  # fmt: skip
            what = f"{sample.order} {sample.sampler} {sample.kind}".strip()
            print(f"--- epoch {epoch}, bytes {sample.start_byte} to {sample.end_byte}: {what}")
            if sample.order != "ar":
                before, after = sample.prefix[-120:], sample.suffix[:120]
                print(f"{show(before)}<<<{show(sample.middle)}>>>{show(after)}")


def show(text: bytes) -> str:
    """Decode, though a character may be cut at the ends."""
    return text.decode(errors="ignore")


if __name__ == "__main__":
    main(*sys.argv[1:2] or [__file__])
