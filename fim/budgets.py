"""How much prefix and suffix real clients send: the lengths to train and to measure on."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One row of `PROFILES`; 0 is no limit."""

    prompt_tokens: int = 0
    """Most tokens of prefix, suffix and other files together."""
    prefix_tokens: int = 0
    """Most tokens of the prefix."""
    suffix_tokens: int = 0
    """Most tokens of the suffix."""
    prefix_lines: int = 0
    """Most whole lines before the line of the cursor."""
    suffix_lines: int = 0
    """Most whole lines after the line of the cursor."""
    characters: int = 0
    """Most characters of prefix and suffix together; the prefix gives way, from its start."""
    source: str
    """Where the row comes from."""


PROFILES = {
    "none": Profile(source="the window is the only limit"),
    "continue": Profile(
        prompt_tokens=1_024,
        prefix_tokens=307,
        suffix_tokens=204,
        source="continuedev/continue core/util/parameters.ts: 1024, 30 % and 20 % of it",
    ),
    "llama.cpp": Profile(
        prefix_tokens=1_536,
        suffix_tokens=510,
        source="ggml-org/llama.cpp format_prompt_infill: 3:1 of n_batch, 2048 unless said, less 2",
    ),
    "llama.vim": Profile(
        prefix_tokens=1_536,
        suffix_tokens=510,
        prefix_lines=256,
        suffix_lines=64,
        source="ggml-org/llama.vim n_prefix and n_suffix, sent to llama.cpp",
    ),
    "tabby": Profile(
        prefix_lines=20,
        suffix_lines=20,
        characters=1_536,
        source="TabbyML/tabby agent maxPrefixLines, maxSuffixLines; server max_input_length",
    ),
}


def within_lines(prefix: bytes, suffix: bytes, profile: Profile) -> tuple[bytes, bytes]:
    """Cut a prefix at its start and a suffix at its end to a profile's lines and characters."""
    if profile.prefix_lines:
        prefix = prefix[_nth_from_end(prefix, profile.prefix_lines + 1) :]
    if profile.suffix_lines:
        suffix = suffix[: _nth(suffix, profile.suffix_lines + 1)]
    if profile.characters:
        after = suffix.decode(errors="surrogateescape")[: profile.characters]
        room = profile.characters - len(after)
        before = prefix.decode(errors="surrogateescape")[-room:] if room else ""
        prefix, suffix = (text.encode(errors="surrogateescape") for text in (before, after))
    return prefix, suffix


def _nth_from_end(text: bytes, lines: int) -> int:
    """Offset at which the last so many lines start; the last may have no newline."""
    place = len(text)
    for _ in range(lines):
        place = text.rfind(b"\n", 0, place)
        if place < 0:
            return 0
    return place + 1


def _nth(text: bytes, lines: int) -> int:
    """Offset at which the first so many lines end, their newlines included."""
    place = 0
    for _ in range(lines):
        place = text.find(b"\n", place) + 1
        if place == 0:
            return len(text)
    return place
