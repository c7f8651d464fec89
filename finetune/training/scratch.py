"""A tiny code model from nothing, for machines that cannot download one."""

from typing import Any

from transformers import Qwen2Config, Qwen2ForCausalLM

from finetune.recipe.model import Scratch


def make_model(scratch: Scratch, tokenizer: Any, max_length: int) -> Qwen2ForCausalLM:
    """Build the model with random weights; seed torch before."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=scratch.hidden_size,
        num_hidden_layers=scratch.num_layers,
        num_attention_heads=scratch.num_heads,
        num_key_value_heads=max(1, scratch.num_heads // 2),
        intermediate_size=scratch.intermediate_size,
        max_position_embeddings=max_length,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)
