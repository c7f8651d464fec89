"""What a row of `FORMATS` says of a model family: sentinels, orders, ends, paths, other files.

Two flavors of SPM exist and do not mix: `SPM_V2` joins prefix and MIDDLE after the last sentinel
(StarCoder, Code Llama, aiXcoder), `SPM_V1` puts a sentinel between them (llama.cpp's
`--spm-infill`). No vocabulary tells which order a model knows, so the order is data, never a guess.
"""

from dataclasses import dataclass, field


class Text(str):
    """Literal text of a layout; `{path}` and `{title}` stand for the file's path and language."""

    __slots__ = ()


Layout = tuple[str, ...]
"""Sentinels `PRE SUF MID`, segments `P S M`, `C` for other files (without it they come first),
further control tokens as they are spelled, and `Text`. The MIDDLE is last."""
PSM: Layout = ("PRE", "P", "SUF", "S", "MID", "M")
SPM_V1: Layout = ("SUF", "S", "PRE", "P", "MID", "M")
SPM_V2: Layout = ("PRE", "SUF", "S", "MID", "P", "M")
TOKENIZER_BOS = "tokenizer"
"""Value of `FimFormat.bos`: whatever the tokenizer itself puts before a text."""
VERIFIED = ("golden", "doc", "memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class FimFormat:
    """One row of `FORMATS`."""

    prefix: str = ""
    """Sentinel before the prefix, if any."""
    suffix: str
    """Sentinel before the suffix."""
    middle: str = ""
    """Sentinel before the MIDDLE, if any."""
    orders: dict[str, Layout]
    """Layout of each order: `psm` begins with the prefix, `spm` with the suffix."""
    trained: dict[str, float]
    """Orders the family was trained on, with the weights to train on."""
    end: str
    """Token the model was trained to write after a MIDDLE."""
    document_end: str
    """Token after a whole document."""
    stop: tuple[str, ...]
    """Tokens a server must stop at; those a tokenizer lacks are left out."""
    bos: str = ""
    """Token at the start of every sample, if any, or `TOKENIZER_BOS`."""
    guarded: frozenset[str] = frozenset()
    """Segments encoded without SentencePiece's leading blank."""
    pad: str = ""
    """Padding token of FIM training, if any; llama.cpp stops at it."""
    file: str = ""
    """Token before a file's path, if any."""
    file_end: str = ""
    """Token or text after another file of the repository."""
    repo: str = ""
    """Token before the repository's name, if any."""
    repo_end: str = "\n"
    """Text between the repository's name and the first file."""
    path: str = "before"
    """Where the file token and the path stand: `before` the block, both `inside` the prefix, or
    `split`, the token before the block and the path inside the prefix."""
    header: str = "{comment} {path}{end}\n"
    """Text that names the path, for families without a file token."""
    file_header: str = ""
    """Text that names the path of another file, where it is not `header`."""
    models: tuple[str, ...] = ()
    """Parts of names, beside the row's own, that mean this family: of models, or `model_type`."""
    marks: dict[str, bool] = field(default_factory=dict)
    """Further tokens the family's vocabulary has (true) or has not (false)."""
    untrained: str = ""
    """Why the family is refused although its vocabulary has the sentinels."""
    verified: str = "doc"
    """`golden`: a published prompt or its ids are held to in a test; `doc`: as the authors' card,
    paper or code says; `memory`: one field at least could not be looked up."""
    source: str
    """Where the row comes from."""

    @property
    def fim_trained(self) -> bool:
        """Whether the published base models were trained on FIM."""
        return not self.untrained
