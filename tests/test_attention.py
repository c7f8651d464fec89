"""The attention of packs: each sample by itself, by whatever kernel, and each step counted once."""

import inspect

import pytest
import torch
from packed_unpacked import FAMILIES, distance, make_model, make_rows, packed_logits

from fim import FimError
from finetune.recipe.model import ATTENTIONS
from finetune.training import attention
from finetune.training.attention import BLOCKS, block_attention, choose_attention

EDGES = torch.tensor([0, 7, 8, 30], dtype=torch.int32)
LAYER = torch.nn.Identity()


def heads(count: int = 4, dim: int = 8, length: int = 30, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, count, length, dim, generator=generator, dtype=torch.float64)


def states(key_heads: int = 2, value_dim: int = 8) -> tuple[torch.Tensor, ...]:
    return heads(), heads(key_heads, seed=1), heads(key_heads, value_dim, seed=2)


def by_hand(query, key, value, window=None, softcap=None, scaling=8**-0.5):
    """Block-diagonal attention as in a textbook: the scores of all pairs, most of them masked."""
    sample = torch.bucketize(torch.arange(30), EDGES, right=True)
    back = torch.arange(30)[:, None] - torch.arange(30)
    mask = (sample[:, None] == sample) & (back >= 0) & (back < (window or 30))
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * scaling
    if softcap:
        scores = softcap * (scores / softcap).tanh()
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    return (weights @ value).transpose(1, 2)


@pytest.mark.parametrize("window", [None, 1, 4, 22, 100])
@pytest.mark.parametrize("softcap", [None, 0.5])
@pytest.mark.parametrize(("key_heads", "value_dim"), [(4, 8), (2, 8), (1, 8), (4, 6), (2, 12)])
def test_block_attention_is_the_formula(window, softcap, key_heads, value_dim):
    tensors = states(key_heads, value_dim)

    output, weights = block_attention(
        LAYER, *tensors, None, cu_seq_lens_q=EDGES, max_length_q=22, sliding_window=window,
        softcap=softcap,
    )  # fmt: skip

    assert distance(output, by_hand(*tensors, window, softcap)) <= 1e-12
    assert output.is_contiguous()  # some models view it
    assert weights is None


def test_block_attention_takes_the_models_scale():
    output, _ = block_attention(LAYER, *states(), None, scaling=0.2, cu_seq_lens_q=EDGES)

    assert distance(output, by_hand(*states(), scaling=0.2)) <= 1e-12


def test_block_attention_finds_the_boundaries_in_positions():
    positions = torch.tensor([[*range(7), 0, *range(22)]])

    output, _ = block_attention(LAYER, *states(), None, position_ids=positions)

    assert distance(output, by_hand(*states())) <= 1e-12


@pytest.mark.parametrize("softcap", [None, 1.0])
def test_dropout_is_for_training(softcap):
    settings = {"cu_seq_lens_q": EDGES, "dropout": 0.5, "softcap": softcap}
    layer = torch.nn.Identity()

    torch.manual_seed(0)
    dropped, _ = block_attention(layer.train(), *states(), None, **settings)
    kept, _ = block_attention(layer.eval(), *states(), None, **settings)

    assert distance(kept, by_hand(*states(), softcap=softcap)) <= 1e-12
    assert distance(dropped, kept) > 0.1


def kernel_of_torch_2_11(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)
):
    """Stands for torch's kernel, which only a GPU runs; refuses what the real one refuses."""
    assert cu_seq_q is cu_seq_k
    assert (max_q, max_k) == (22, 22)
    assert query.shape[-1] == key.shape[-1] == value.shape[-1]
    assert query.shape[1] == key.shape[1] == value.shape[1]
    assert window_size[1] == 0
    window = None if window_size[0] == -1 else window_size[0] + 1
    tensors = (x.transpose(0, 1)[None] for x in (query, key, value))
    return by_hand(*tensors, window, scaling=scale or query.shape[-1] ** -0.5)[0]


def kernel_of_torch_2_12(query, key, value, *args, enable_gqa=False, **kwargs):
    """The later kernel takes fewer key heads, if it is told."""
    if enable_gqa:
        groups = query.shape[1] // key.shape[1]
        assert groups > 1
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    return kernel_of_torch_2_11(query, key, value, *args, **kwargs)


@pytest.mark.parametrize(
    ("kernel", "grouped"), [(kernel_of_torch_2_11, False), (kernel_of_torch_2_12, True)]
)
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize(("key_heads", "value_dim"), [(4, 8), (2, 8), (1, 8), (4, 6)])
def test_the_kernel_of_torch_gets_what_it_takes(
    kernel, grouped, window, key_heads, value_dim, monkeypatch
):
    monkeypatch.setattr(attention, "varlen_attn", kernel)
    monkeypatch.setattr(attention, "_GROUPED_KERNEL", grouped)
    monkeypatch.setattr(attention, "_fits_kernel", lambda query, value: True)
    tensors = states(key_heads, value_dim)

    output, _ = block_attention(
        LAYER, *tensors, None, cu_seq_lens_q=EDGES, max_length_q=22, sliding_window=window
    )

    assert distance(output, by_hand(*tensors, window)) <= 1e-12


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize(("key_heads", "value_dim"), [(4, 8), (2, 8), (4, 6)])
def test_the_kernel_of_torch_is_the_formula(window, key_heads, value_dim):
    tensors = [x.bfloat16() for x in states(key_heads, value_dim)]

    output, _ = block_attention(
        LAYER, *(x.cuda() for x in tensors), None, cu_seq_lens_q=EDGES.cuda(), max_length_q=22,
        sliding_window=window,
    )  # fmt: skip

    assert attention._fits_kernel(tensors[0].cuda(), tensors[2].cuda())
    assert distance(output.cpu().double(), by_hand(*(x.double() for x in tensors), window)) <= 2e-2


@pytest.mark.parametrize("grouped", [{}, {"enable_gqa": True}])
def test_varlen_attn_of_this_torch_takes_our_arguments(grouped):
    if grouped and not attention._GROUPED_KERNEL:
        pytest.skip("torch 2.11")
    x = torch.zeros(6, 2, 8)

    inspect.signature(attention.varlen_attn).bind(
        x, x, x, EDGES, EDGES, 4, 4, scale=None, window_size=(-1, 0), **grouped
    )


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "stablelm"])
def test_layers_share_what_a_step_knows_of_its_samples(family, monkeypatch):
    model = make_model(FAMILIES[family])  # two layers; Gemma 2's first alone has a window
    reads = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(
        torch.Tensor, "tolist", lambda x: reads.append(1) if x.dim() != 1 else tolist(x)
    )

    with torch.inference_mode():
        attention._tiles.cache_clear()
        attention._boundaries.cache_clear()
        for _ in range(3):
            packed_logits(model, make_rows())

    assert reads == []
    assert attention._tiles.cache_info().misses == 3 * (2 if family == "gemma2" else 1)
    assert attention._boundaries.cache_info().misses == (3 if family == "stablelm" else 0)


def test_a_mask_made_in_inference_serves_training():
    model = make_model(FAMILIES["mistral"])
    attention._band.cache_clear()

    with torch.inference_mode():
        packed_logits(model, make_rows())
    packed_logits(model, make_rows()).sum().backward()

    assert attention._band.cache_info().misses == 1


def test_no_mask_is_as_long_as_a_sample():
    mask = attention._band(4, torch.device("cpu"))

    assert mask.int().tolist() == [
        [1, 1, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 1, 0],
        [0, 0, 0, 1, 1, 1, 1],
    ]
    assert attention._tiles(EDGES, 4)[2:5] == [(7, 8, 7), (8, 12, 8), (12, 16, 9)]


@pytest.mark.parametrize(
    ("batch", "mask", "edges"),
    [(1, None, None), (2, None, EDGES), (1, torch.ones(1, 1, 30, 30), EDGES)],
    ids=["no boundaries", "two rows", "mask"],
)
def test_block_attention_raises_on(batch, mask, edges):
    tensors = (x.expand(batch, -1, -1, -1) for x in states())

    with pytest.raises(FimError, match="one flat row with cu_seq_lens_q and no mask"):
        block_attention(LAYER, *tensors, mask, cu_seq_lens_q=edges)


def test_block_attention_raises_on_sinks():
    with pytest.raises(FimError, match="attention sinks"):
        block_attention(LAYER, *states(), None, cu_seq_lens_q=EDGES, s_aux=torch.zeros(2))


def test_block_attention_takes_the_dtype_of_the_values():
    query, key, value = states()

    output, _ = block_attention(
        LAYER, query.float(), key.float(), value.bfloat16(), None, cu_seq_lens_q=EDGES
    )

    assert output.dtype == torch.bfloat16


CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("asked", "device", "chosen"),
    [
        ("auto", CPU, "sfim_blocks"),
        ("blocks", CPU, "sfim_blocks"),
        ("sdpa", CPU, "sdpa"),
        ("auto", CUDA, "flash_attention_2"),
        ("blocks", CUDA, "sfim_blocks"),
        ("sdpa", CUDA, "sdpa"),
        ("flash_attention_2", CUDA, "flash_attention_2"),
        ("flash_attention_3", CUDA, "flash_attention_3"),
        ("flex_attention", CUDA, "flex_attention"),
    ],
)
def test_choose_attention(asked, device, chosen, monkeypatch, capsys):
    monkeypatch.setattr(attention, "_installed_flash_attention", lambda device: "flash_attention_2")
    attention._warn_of_masks.cache_clear()

    assert choose_attention(asked, device) == choose_attention(asked, device) == chosen
    assert capsys.readouterr().err.count("dense mask") == (chosen == "sdpa")


@pytest.mark.parametrize(
    ("dtype", "chosen"),
    [
        (torch.bfloat16, "flash_attention_2"),
        (torch.float16, "flash_attention_2"),
        (torch.float32, "sfim_blocks"),
        (torch.float64, "sfim_blocks"),
    ],
)
def test_auto_takes_flash_attention_for_half_precision_only(dtype, chosen, monkeypatch):
    monkeypatch.setattr(attention, "_installed_flash_attention", lambda device: "flash_attention_2")

    assert choose_attention("auto", CUDA, dtype) == chosen


@pytest.mark.parametrize(
    ("version_2", "version_3", "capability", "chosen"),
    [
        (False, False, 9, "sfim_blocks"),
        (True, False, 9, "flash_attention_2"),
        (True, True, 9, "flash_attention_3"),
        (True, True, 8, "flash_attention_2"),
        (False, True, 8, "sfim_blocks"),
    ],
)
def test_auto_takes_the_installed_package(version_2, version_3, capability, chosen, monkeypatch):
    monkeypatch.setattr(attention, "is_flash_attn_2_available", lambda: version_2)
    monkeypatch.setattr(attention, "is_flash_attn_3_available", lambda: version_3)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (capability, 0))

    assert choose_attention("auto", CUDA, torch.bfloat16) == chosen


def test_auto_needs_no_package_here():
    assert attention._installed_flash_attention(CPU) is None
    assert choose_attention("auto", CPU) == BLOCKS


@pytest.mark.parametrize("asked", ["flash_attention_2", "flash_attention_3", "flex_attention"])
def test_choose_attention_refuses_what_cannot_train_on_a_cpu(asked):
    with pytest.raises(FimError, match=rf"^model\.attention: {asked} cannot .* set it to blocks$"):
        choose_attention(asked, CPU)


@pytest.mark.parametrize("asked", ["fast", "eager"])  # eager takes its softmax in float32
def test_choose_attention_refuses_unknown_names(asked):
    known = ", ".join(ATTENTIONS)

    with pytest.raises(FimError, match=rf"model\.attention: unknown '{asked}'; known: {known}$"):
        choose_attention(asked, CPU)
