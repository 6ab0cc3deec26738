"""Checkpoints of llama2.c as Transformers models: a Llama and its tokenizer from two small binary files."""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrecall.errors import BadInput
from unrecall.scenarios.hub import Loaded, transformers

HEADER = struct.Struct("<7i")


def load(weights: Path, tokenizer: Path) -> Loaded:
    """The model and tokenizer of a version-0 llama2.c checkpoint; BadInput where a file is missing or truncated.

    The rotary embedding of llama2.c turns neighbouring coordinates, that of Transformers the two halves of a head, so
    the rows of the query and key matrices are put in the other order.
    """
    data, pieces = _bytes(weights), _bytes(tokenizer)
    if len(data) < HEADER.size:
        raise BadInput(f"{weights}: expected a llama2.c checkpoint, got {len(data)} bytes.")
    width, hidden, layers, heads, kv_heads, words, context = HEADER.unpack_from(data)
    sizes = {"dim": width, "layers": layers, "heads": heads, "vocabulary": abs(words)}
    if min(sizes.values()) <= 0 or width % heads or kv_heads <= 0:
        raise BadInput(f"{weights}: expected a llama2.c checkpoint, got a header that says {sizes}.")
    library = transformers()
    config = library.LlamaConfig(
        vocab_size=abs(words),
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=context,
        tie_word_embeddings=words > 0,
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=0,
    )
    model = library.LlamaForCausalLM(config)
    model.load_state_dict(_state(data, weights, config), strict=False)
    return Loaded(model.eval(), _tokenizer(pieces, tokenizer, abs(words)))


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise BadInput(f"{path}: expected a file of llama2.c, got nothing there. Check the path.")
    return path.read_bytes()


def _state(data: bytes, path: Path, config: Any) -> dict[str, Tensor]:
    """The weights by their names in Transformers, in the order in which llama2.c writes them."""
    width, hidden, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    head = width // config.num_attention_heads
    narrow = config.num_key_value_heads * head
    at = HEADER.size

    def take(*shape: int) -> Tensor:
        nonlocal at
        end = at + 4 * torch.Size(shape).numel()
        if end > len(data):
            raise BadInput(f"{path}: expected at least {end} bytes, got {len(data)}. The file is truncated.")
        values = torch.frombuffer(bytearray(data[at:end]), dtype=torch.float32).reshape(shape)
        at = end
        return values

    def halves(rows: Tensor) -> Tensor:
        """Pairs of neighbours become pairs across the halves of each head."""
        return rows.reshape(-1, head // 2, 2, width).transpose(1, 2).reshape(-1, width)

    embeddings = take(config.vocab_size, width)
    stacks = {
        "input_layernorm": take(layers, width),
        "self_attn.q_proj": take(layers, width, width),
        "self_attn.k_proj": take(layers, narrow, width),
        "self_attn.v_proj": take(layers, narrow, width),
        "self_attn.o_proj": take(layers, width, width),
        "post_attention_layernorm": take(layers, width),
        "mlp.gate_proj": take(layers, hidden, width),
        "mlp.down_proj": take(layers, width, hidden),
        "mlp.up_proj": take(layers, hidden, width),
    }
    state = {"model.embed_tokens.weight": embeddings, "model.norm.weight": take(width)}
    for name, stack in stacks.items():
        for i, value in enumerate(stack):
            turned = halves(value) if name in ("self_attn.q_proj", "self_attn.k_proj") else value
            state[f"model.layers.{i}.{name}.weight"] = turned
    if config.tie_word_embeddings:
        return state | {"lm_head.weight": embeddings}
    take(2, config.max_position_embeddings * head // 2)  # cosines and sines of the rotary embedding
    return state | {"lm_head.weight": take(config.vocab_size, width)}


def _tokenizer(data: bytes, path: Path, words: int) -> Any:
    """The pieces with their scores as a BPE of Transformers; what begins a text also ends it, as llama2.c trains."""
    library = transformers()
    from tokenizers import Tokenizer, decoders, models, normalizers, processors

    scored = list(_pieces(data, path, words))
    names = ["<unk>", "<s>", "</s>", *(piece.replace(" ", "▁") for piece, _ in scored[3:])]
    ids = {name: i for i, name in enumerate(names)}
    built = Tokenizer(
        models.BPE(ids, _merges(names, ids, scored), unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    built.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    built.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    built.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return library.PreTrainedTokenizerFast(
        tokenizer_object=built, unk_token="<unk>", bos_token="<s>", eos_token="<s>", pad_token="<unk>"
    )


def _pieces(data: bytes, path: Path, words: int) -> Iterator[tuple[str, float]]:
    """Each piece and its score: after the longest piece's length, a float, an int and so many bytes each."""
    at = 4
    for _ in range(words):
        if at + 8 > len(data):
            raise BadInput(f"{path}: expected {words} pieces, got a shorter file. It belongs to another model.")
        score, length = struct.unpack_from("<fi", data, at)
        yield data[at + 8 : at + 8 + length].decode("utf-8", errors="replace"), score
        at += 8 + length


def _merges(names: Sequence[str], ids: dict[str, int], scored: Sequence[tuple[str, float]]) -> list[tuple[str, str]]:
    """Every pair of pieces that makes another piece, the best-scored piece first: SentencePiece's order of merging."""
    merges = []
    for name, (_, score) in zip(names[3:], scored[3:], strict=True):
        cuts = [(name[:i], name[i:]) for i in range(1, len(name))]
        merges += [(-score, ids[a], ids[b], a, b) for a, b in cuts if a in ids and b in ids]
    return [(a, b) for *_, a, b in sorted(merges)]
