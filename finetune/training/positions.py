"""Longer contexts than a base was trained on: the base of its rotary frequencies."""

from collections.abc import Iterator
from typing import Any

from fim import FimError


def set_positions(config: Any, rope_theta: float, max_length: int) -> Iterator[str]:
    """Set the rotary base and the longest position of a config, before its weights are loaded.

    Args:
        config: a transformers config, changed.
        rope_theta: base of the rotary frequencies; 0 keeps the config's.
        max_length: tokens of the longest sample; positions are raised to it, never lowered.

    Yields:
        What was changed, a line each.

    Raises:
        FimError: the model has no rotary positions, or several kinds of them.

    Source:
        Code Llama, arXiv 2308.12950: a base of 1e6 for 16,384 tokens; Llama 2 has 1e4.
    """
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    if rope_theta and "rope_theta" not in rope:
        kinds = "several kinds of" if rope else "no"
        raise FimError(f"model.rope_theta: {text.model_type} has {kinds} rotary positions; set 0")
    if rope_theta and rope["rope_theta"] != rope_theta:
        yield f"rope_theta: {rope['rope_theta']:g} in the base, {rope_theta:g} now"
        text.rope_parameters = {**rope, "rope_theta": rope_theta}
    longest = getattr(text, "max_position_embeddings", None)
    if longest is None or longest >= max_length:
        return
    if not rope:
        raise FimError(f"fim.max_length: {text.model_type} has {longest:,} positions; lower it")
    yield f"max_position_embeddings: {longest:,} in the base, {max_length:,} now"
    text.max_position_embeddings = max_length


def read_positions(config: Any) -> dict[str, Any]:
    """What `set_positions` may change, by the keys of a config whose model has one rotary base."""
    text = config.get_text_config()
    keys = ("rope_parameters", "max_position_embeddings")
    return {key: getattr(text, key) for key in keys if getattr(text, key, None)}
