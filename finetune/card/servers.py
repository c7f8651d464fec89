"""How vLLM and llama.cpp are started with a tuned model, for its card."""

import json
from collections.abc import Mapping
from typing import Any

_VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What `--max-lora-rank` takes (vLLM 0.14 to 0.22, `vllm/config/lora.py`)."""


def servers(
    to: str, base: str, adapter: Mapping[str, Any], positions: Mapping[str, Any] = {}
) -> str:
    """Write the commands, or why the adapter must be merged before.

    Args:
        to: hub repository of the tuned model.
        base: hub id or folder of what it was tuned on.
        adapter: its `adapter_config.json`; empty for full weights.
        positions: keys of the base's configuration that must be others, see `read_positions`.

    Source:
        vLLM's documentation, "Context Extension", for tables in `--hf-overrides`; before 0.12
        (its pull request 28542) it knew no `rope_parameters`.
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
    vllm, llama, note, since = "", "", "", ""
    if positions:
        since = " 0.12 or newer"
        theta = positions["rope_parameters"]["rope_theta"]
        # vLLM puts a table in the place of the base's, so it holds all of its keys
        vllm, llama = f" --hf-overrides '{json.dumps(positions)}'", f" --rope-freq-base {theta:g}"
        note = (
            f"The adapter was trained with a rotary base of {theta:g}, which the base model does "
            "not have: without it, what it writes is wrong.\n\n"
        )
    return (
        f"{note}vLLM{since}: {_vllm(to, base, adapter['r'], vllm)}\n\n"
        "llama.cpp: `python convert_lora_to_gguf.py ADAPTER_FOLDER --base BASE_FOLDER --outfile "
        f"adapter.gguf`, then `llama-server -m base.gguf --lora adapter.gguf{llama}`"
    )


def _vllm(to: str, base: str, rank: int, overrides: str) -> str:
    allowed = next((one for one in _VLLM_RANKS if one >= rank), None)
    if allowed is None:
        return (
            f"it takes adapters up to rank {_VLLM_RANKS[-1]}, this one has {rank}; merge it "
            "(`sfim merge RUN OUT`), then `vllm serve OUT`"
        )
    return (
        f"`vllm serve {base} --enable-lora --max-lora-rank {allowed} --lora-modules tuned={to}"
        f"{overrides}`"
    )
