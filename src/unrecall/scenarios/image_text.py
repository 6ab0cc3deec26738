"""Image-text models and tokenizers: loaded as Transformers users have them, or small ones made here."""

import gzip
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from unrecall.disk.weights import files_of, precision_of
from unrecall.errors import BadInput
from unrecall.scenarios.hub import (
    Loaded,
    check_whole,
    load_or_refuse,
    local_folder,
    open_model,
    transformers,
)

BEGIN, END = "<|startoftext|>", "<|endoftext|>"


def load_clip(name: str) -> Loaded:
    """A dual encoder, held in float32, and its tokenizer from a folder or by a hub id; BadInput where there is none."""
    folder, expected = local_folder(name, "a Transformers CLIP"), "a Transformers CLIP and its tokenizer"
    model, lacking = open_model("CLIPModel", folder, name, expected, dtype=torch.float32)
    tokenizer = load_or_refuse(
        f"{name}: expected {expected}",
        lambda: transformers().AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
    )
    check_whole(f"{name}: expected a CLIP", lacking)
    return Loaded(model.eval(), tokenizer, precision_of(files_of(folder)))


def caption_tokenizer(captions: Iterable[str], size: int, merges: str = "") -> Any:
    """CLIP's own lower-case BPE, of `size` tokens: the first merges of a file as OpenAI ships it, or trained here."""
    library = transformers()
    from tokenizers import pre_tokenizers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    letters = sorted(alphabet)
    base = [*letters, *(f"{letter}</w>" for letter in letters)]
    room = size - len(base) - 2
    if room < 1:
        raise BadInput(f"words: expected at least {len(base) + 3} tokens, all letters among them, got {size}.")
    pairs = read_merges(Path(merges), room) if merges else _learned(captions, size - 2)
    joined = [first + second for first, second in pairs]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*base, *joined, BEGIN, END]))}
    return library.CLIPTokenizer(
        vocab=vocabulary, merges=pairs, bos_token=BEGIN, eos_token=END, pad_token=END, unk_token=END
    )


def read_merges(path: Path, most: int) -> list[tuple[str, str]]:
    """The first merges of `bpe_simple_vocab_16e6.txt.gz`, or of such a file unpacked; its first line is a version."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: expected a file of BPE merges, got: {error}") from error
    lines = [line.split() for line in text.split("\n")[1 : most + 1] if line.strip()]
    wrong = next((i for i, line in enumerate(lines, 2) if len(line) != 2), None)
    if wrong is not None or not lines:
        raise BadInput(f"{path}:{wrong or 1}: expected two pieces a line, as OpenAI's CLIP has them.")
    return [(first, second) for first, second in lines]


def _learned(captions: Iterable[str], size: int) -> list[tuple[str, str]]:
    """Merges learned from captions, words ending in `</w>`, as CLIP's do; the same captions give the same merges."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(False)])
    trainer = trainers.BpeTrainer(vocab_size=size, end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator(captions, trainer)
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


class Towers(NamedTuple):
    """How large a small CLIP is: `width` and `depth` of both towers, `size` of pictures and of a `patch`, in pixels."""

    width: int
    depth: int
    size: int
    patch: int


def small_clip(tokenizer: Any, towers: Towers, context: int) -> nn.Module:
    """An untrained CLIP: both towers of one width and depth, one head for each 32 of it, for square pictures.

    Weights start twice as wide as CLIP's usual ones; whether so narrow a model needs that was not compared.
    """
    width, depth, size, patch = towers
    if size % patch:
        raise BadInput(f"patch: expected a divisor of the picture's size {size}, got {patch}.")
    library = transformers()
    sizes = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": depth,
        "num_attention_heads": max(1, width // 32),
    }
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = library.CLIPConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "max_position_embeddings": context,
            "pad_token_id": tokenizer.pad_token_id,
            **sizes,
            **ends,
        },
        vision_config={"image_size": size, "patch_size": patch, **sizes},
        projection_dim=width,
        initializer_factor=2.0,
    )
    model: nn.Module = library.CLIPModel(config)
    return model
