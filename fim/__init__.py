"""Structured fill-in-the-middle: source text in, packs out. No torch, no disk, no network."""

from fim.budgets import PROFILES, Profile
from fim.content import content_tokenizer
from fim.data import IGNORE_INDEX, Document, Pack, Sample, Span, Tokens
from fim.detection import detect_language
from fim.encoding import encode, encode_prompt
from fim.errors import ControlToken, FimError, TooLong
from fim.formats import FORMATS, FimFormat, ProvedFormat, resolve_format
from fim.languages import LANGUAGES, Language
from fim.packing import (
    block_mask,
    pack,
    pack_lengths,
    pack_stream,
    plan_packs,
    position_ids,
)
from fim.samples import make_rng, make_samples, split_at
from fim.spans import BOUNDARIES, SAMPLERS, SpanPolicy, candidate_spans, choose_span
from fim.syntax import Syntax, error_rate, parse

__all__ = [
    "BOUNDARIES",
    "FORMATS",
    "IGNORE_INDEX",
    "LANGUAGES",
    "PROFILES",
    "SAMPLERS",
    "ControlToken",
    "Document",
    "FimError",
    "FimFormat",
    "Language",
    "Pack",
    "Profile",
    "ProvedFormat",
    "Sample",
    "Span",
    "SpanPolicy",
    "Syntax",
    "Tokens",
    "TooLong",
    "block_mask",
    "candidate_spans",
    "choose_span",
    "content_tokenizer",
    "detect_language",
    "encode",
    "encode_prompt",
    "error_rate",
    "make_rng",
    "make_samples",
    "pack",
    "pack_lengths",
    "pack_stream",
    "parse",
    "plan_packs",
    "position_ids",
    "resolve_format",
    "split_at",
]
