"""How vLLM and llama.cpp are started with a tuned model, for its card."""

import json
from collections.abc import Mapping
from typing import Any

from finetune.recipe import Model

_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def servers(to: str, base: str, model: Model, adapter: Mapping[str, Any]) -> str:
    """Write the commands, or why the adapter must be merged before.

    Args:
        to: hub repository of the tuned model.
        base: hub id or folder of what it was tuned on.
        model: how it was tuned.
        adapter: its `adapter_config.json`; empty for full weights.
    """
    if not adapter:
        return (
            f"vLLM: `vllm serve {to}`\n\n"
            "llama.cpp: `python convert_hf_to_gguf.py MODEL_FOLDER --outfile model.gguf`"
        )
    if adapter.get("use_dora") or adapter.get("trainable_token_indices"):
        what = "DoRA" if adapter.get("use_dora") else "trained sentinels"
        return (
            f"vLLM and llama.cpp refuse adapters with {what}. Merge it (`sfim merge RUN OUT`) and "
            "serve the result: `vllm serve OUT`, or `python convert_hf_to_gguf.py OUT --outfile "
            "model.gguf`."
        )
    rank = adapter["r"]
    allowed = next((one for one in _VLLM_RANKS if one >= rank), rank)
    vllm, llama, note = "", "", ""
    if theta := model.rope_theta:
        rope = {"rope_parameters": {"rope_type": "default", "rope_theta": theta}}
        vllm, llama = f" --hf-overrides '{json.dumps(rope)}'", f" --rope-freq-base {theta:g}"
        note = (
            f"The adapter was trained with a rotary base of {theta:g}, which the base model does "
            "not have: without it, what it writes is wrong. In transformers set "
            f'`config.rope_parameters["rope_theta"] = {theta:g}` before the base is loaded.\n\n'
        )
    return (
        f"{note}vLLM: `vllm serve {base} --enable-lora --max-lora-rank {allowed} "
        f"--lora-modules tuned={to}{vllm}`\n\n"
        "llama.cpp: `python convert_lora_to_gguf.py ADAPTER_FOLDER --base BASE_FOLDER --outfile "
        f"adapter.gguf`, then `llama-server -m base.gguf --lora adapter.gguf{llama}`"
    )
