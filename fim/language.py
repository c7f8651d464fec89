"""What a row of the language table says, and the names its constructs may have."""

from dataclasses import dataclass, field
from importlib import metadata

CONSTRUCTS = (
    "function", "class", "import", "comment", "string", "call", "arguments", "assignment",
    "return", "expression", "if", "for", "while", "try", "switch",
)  # fmt: skip
"""Constructs a row lists; `expression` is one of some size that is neither a call nor a literal."""
BODY_CONSTRUCTS = (
    "signature", "body", "body_top", "body_middle", "body_bottom", "commented_function",
)  # fmt: skip
"""Parts of a function whose body is a node, and such a function with the comment above it."""
DERIVED_CONSTRUCTS = (*BODY_CONSTRUCTS, "line", "empty")
"""Constructs that are made from others, with every grammar alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """One row of `LANGUAGES`."""

    title: str
    """Name as people write it, e.g. `"C++"`."""
    extensions: tuple[str, ...]
    """Lower-case file extensions with the dot."""
    shared: tuple[str, ...] = ()
    """Those of its extensions that other file types use too: there what parses decides."""
    marks: tuple[str, ...] = ()
    """Node types that tell its files from those of the rows before it with the same extension."""
    filenames: tuple[str, ...] = ()
    """Names of files whose extension says nothing, or too little; globs."""
    shebangs: tuple[str, ...] = ()
    """Interpreters whose `#!` line marks the language."""
    distribution: str = ""
    """Distribution that ships the grammar, e.g. `"tree-sitter-python"`; empty: there is none."""
    function: str = "language"
    """Function of its module that gives the grammar."""
    comment: str = "//"
    """What starts a comment."""
    comment_end: str = ""
    """What ends it, where the end of the line does not."""
    constructs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Construct name, one of `CONSTRUCTS`, to node types.

    Where a type alone says too little, what must be inside follows it, as in a tree-sitter query:
    `"struct_specifier body: (_)"` is a struct that is defined, not one that is named.
    """
    bodies: tuple[str, ...] = ()
    """Node types of a function's body where the grammar has no field named `body`."""
    has_bodies: bool = True
    """Whether a function's body is one node; in Julia its statements stand beside the signature."""
    is_code: bool = True
    """Whether it is code; prose gives autoregressive samples only, whatever grammar there is."""
    by_default: bool = True
    """Whether its files are taken unless asked otherwise; data and prose are not."""

    @property
    def version(self) -> str | None:
        """Version of the installed grammar, `None` where it is not installed or does not exist."""
        try:
            return metadata.version(self.distribution) if self.distribution else None
        except metadata.PackageNotFoundError:
            return None

    @property
    def construct_names(self) -> tuple[str, ...]:
        """Names of the constructs its files can have, those made from others included."""
        if not self.is_code or not self.distribution:
            return ()
        with_bodies = self.has_bodies and "function" in self.constructs
        return (*self.constructs, *(BODY_CONSTRUCTS if with_bodies else ()), "line", "empty")
