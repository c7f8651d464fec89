"""What `sfim plan` predicts against what a step takes on a GPU: real shapes, random weights.

    python bench/gpu_plan.py [--tokens 8192]

Measured is `torch.cuda.max_memory_allocated` over two optimizer steps. Needs a GPU with 80 GB.
"""

import argparse
import gc

import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from finetune.adapters import add_adapter
from finetune.attention import BLOCKS
from finetune.losses import add_loss, collate
from finetune.plan_memory import model_shape, recompute_activations, spread, step_bytes
from finetune.recipe_model import Model

SHAPES = {  # config.json of Qwen2.5-Coder
    "1.5B": Qwen2Config(
        hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12,
        num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True,
        max_position_embeddings=32768,
    ),
    "7B": Qwen2Config(
        hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
        num_key_value_heads=4, vocab_size=152064, tie_word_embeddings=False,
        max_position_embeddings=32768,
    ),
}  # fmt: skip
CASES = (("1.5B", "lora", False), ("1.5B", "lora", True), ("1.5B", "full", False),
         ("7B", "lora", False), ("7B", "lora", True), ("7B", "full", True))  # fmt: skip


def measure(config: Qwen2Config, model: Model, tokens: int, checkpointing: bool) -> int:
    """Take two steps, and return the most bytes that tensors held."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with torch.device("cuda"):
        base = AutoModelForCausalLM.from_config(
            config, attn_implementation=BLOCKS, dtype=torch.bfloat16
        )
        tuned = (base if model.adapter == "full" else add_adapter(base, model)).train()
    add_loss(base)
    if checkpointing:
        recompute_activations(base)
    trained = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)
    ids = [token % 1_000 for token in range(tokens)]
    lengths = [tokens // 4] * 4
    batch = collate([{"input_ids": ids, "labels": ids, "seq_lengths": lengths}])
    batch = {k: v.cuda() if torch.is_tensor(v) else v for k, v in batch.items()}
    weights = torch.ones(tokens - 1, device="cuda")
    for _ in range(2):
        with torch.autocast("cuda", torch.bfloat16):
            loss = tuned(**batch, token_weights=weights, use_cache=False).loss / tokens
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return torch.cuda.max_memory_allocated()


def main() -> None:
    """Print a line per case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=8192)
    tokens = parser.parse_args().tokens
    for name, adapter, checkpointing in CASES:
        config, model = SHAPES[name], Model(name=name, adapter=adapter)
        shape = model_shape(config, model, torch.bfloat16, 1)
        step = step_bytes(
            config, model, tokens=tokens, checkpointing=checkpointing, accumulates=False,
            dtype=torch.bfloat16, device="cuda",
        )  # fmt: skip
        planned = spread("single", shape, step, 1, torch.bfloat16).total
        found = measure(config, model, tokens, checkpointing)
        print(
            f"{name:5} {adapter:5} {'checkpointing' if checkpointing else '':14} "
            f"{planned / 2**30:7.2f} predicted {found / 2**30:7.2f} GiB measured "
            f"{planned / found - 1:+6.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
