"""What `sfim plan` predicts against what a step takes on a GPU: real shapes, random weights.

    python bench/gpu_plan.py [--tokens 8192] [--tiny]

Measured is `torch.cuda.max_memory_allocated` over two optimizer steps. Needs a GPU with 80 GB;
`--tiny` puts a shape that a CPU can train in their place, to see that the script works: there,
nothing is measured.
"""

import argparse
import gc

import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from finetune.plan.memory import model_shape, recompute_activations, spread, step_bytes
from finetune.recipe.model import Model
from finetune.training.adapters import add_adapter
from finetune.training.attention import BLOCKS
from finetune.training.losses import add_loss, collate

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
TINY = Qwen2Config(
    hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, vocab_size=1_000,
)  # fmt: skip
CASES = (("1.5B", "lora", False), ("1.5B", "lora", True), ("1.5B", "full", False),
         ("7B", "lora", False), ("7B", "lora", True), ("7B", "full", True))  # fmt: skip


def measure(
    config: Qwen2Config, model: Model, tokens: int, checkpointing: bool, device: str
) -> int:
    """Take two steps, and return the most bytes that tensors held on a GPU."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with torch.device(device):
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
    batch = {k: v.to(device) if torch.is_tensor(v) else v for k, v in batch.items()}
    weights = torch.ones(tokens - 1, device=device)
    for _ in range(2):
        with torch.autocast(device, torch.bfloat16):
            loss = tuned(**batch, token_weights=weights, use_cache=False).loss / tokens
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return torch.cuda.max_memory_allocated() if device == "cuda" else 0


def main() -> None:
    """Print a line per case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    device, tokens = ("cpu", 512) if arguments.tiny else ("cuda", arguments.tokens)
    for name, adapter, checkpointing in CASES:
        config = TINY if arguments.tiny else SHAPES[name]
        model = Model(name=name, adapter=adapter)
        shape = model_shape(config, model, torch.bfloat16, 1)
        step = step_bytes(
            config, model, tokens=tokens, checkpointing=checkpointing, accumulates=False,
            dtype=torch.bfloat16, device=device,
        )  # fmt: skip
        planned = spread("single", shape, step, 1, torch.bfloat16).total
        title = f"{name:5} {adapter:5} {'checkpointing' if checkpointing else '':14}"
        try:
            found = measure(config, model, tokens, checkpointing, device)
        except torch.OutOfMemoryError:
            print(f"{title} {planned / 2**30:7.2f} predicted, out of memory", flush=True)
            continue
        error = f"{planned / found - 1:+6.1%}" if found else ""
        print(
            f"{title} {planned / 2**30:7.2f} predicted {found / 2**30:7.2f} GiB measured {error}",
            flush=True,
        )


if __name__ == "__main__":
    main()
