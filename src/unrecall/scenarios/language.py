"""Language models and tokenizers: loaded as Transformers users have them, or small ones made here."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import nn

from unrecall.errors import BadInput, MissingDependency

Precision: TypeAlias = Literal["float32", "bfloat16"]
SPECIAL = ("<pad>", "<s>", "</s>")


class Pair(NamedTuple):
    """A model, in eval mode, and the tokenizer that belongs to it."""

    model: nn.Module
    tokenizer: Any


def transformers() -> Any:
    """The package, with its own progress bars and advice off; MissingDependency with the install line otherwise."""
    try:
        library: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise MissingDependency("transformers", "llm") from error
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    return library


def load(name: str, precision: Precision = "float32", adapter: str = "") -> Pair:
    """A model and its tokenizer from a local folder or a hub id, with a LoRA `adapter` merged where one is named.

    Raises BadInput where nothing is there, the hub can't be reached, or the adapter belongs to another base.
    """
    library = transformers()
    folder = name if Path(name).is_dir() else _from_hub(name)
    if (Path(folder) / "adapter_config.json").is_file():
        raise BadInput(
            f"{name}: expected a whole model, got an adapter. Name its base as the model, and it as the adapter."
        )
    try:
        model = library.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, precision))
        tokenizer = library.AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0]
        raise BadInput(
            f"{name}: expected a Transformers causal language model and its tokenizer, got: {line}"
        ) from error
    return Pair(_adapted(model, name, adapter) if adapter else model.eval(), tokenizer)


def _from_hub(name: str) -> str:
    """The local copy of a hub model, fetched if need be; says at once where that can't be done."""
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or not name:
        raise BadInput(f"{name or 'model'}: expected a folder with a Transformers model, got nothing there.")
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return str(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        pass
    remedy = "Give the path of a local folder that holds config.json, the weights and the tokenizer."
    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE"):
        raise BadInput(f"{name}: expected a local folder, since HF_HUB_OFFLINE is set, got a hub id. {remedy}")
    try:
        HfApi().model_info(name, timeout=5)
        return str(snapshot_download(name))
    except (HfHubHTTPError, HFValidationError, OSError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadInput(f"{name}: expected a folder or a hub id that can be reached, got: {line} {remedy}") from error
    except Exception as error:
        # The hub's HTTP library raises errors of its own that share no base with the built-in ones.
        if type(error).__module__.split(".")[0] not in ("httpx", "httpx2", "httpcore", "httpcore2", "requests"):
            raise
        raise BadInput(f"{name}: the hub can't be reached ({type(error).__name__}). {remedy}") from error


def _adapted(model: nn.Module, name: str, adapter: str) -> nn.Module:
    """The model with a LoRA adapter merged into its weights."""
    try:
        from peft import PeftConfig, PeftModel
    except ImportError as error:
        raise MissingDependency("peft", "llm") from error
    if not (Path(adapter) / "adapter_config.json").is_file():
        raise BadInput(f"{adapter}: expected a folder with adapter_config.json, got none there.")
    base = str(PeftConfig.from_pretrained(adapter).base_model_name_or_path or "")
    try:
        merged: nn.Module = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    except (RuntimeError, ValueError, KeyError) as error:
        raise BadInput(
            f"{adapter}: expected an adapter of {name}, got one made for '{base or 'another model'}', whose weights "
            "don't fit. Name the base that it was trained on."
        ) from error
    if base and Path(base).is_dir() and Path(name).is_dir() and Path(base).resolve() != Path(name).resolve():
        raise BadInput(f"{adapter}: expected an adapter of {name}, got one made for {base}. Name that as the model.")
    return merged.eval()


def trained_tokenizer(texts: Iterable[str], size: int) -> Any:
    """A byte-level BPE tokenizer of `size` tokens, trained on `texts`; the same texts give the same tokenizer."""
    library = transformers()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    pad, begin, end = SPECIAL
    return library.PreTrainedTokenizerFast(tokenizer_object=made, pad_token=pad, bos_token=begin, eos_token=end)


def small_llama(tokenizer: Any, width: int, depth: int, context: int) -> nn.Module:
    """An untrained Llama with tied embeddings; one head for each 32 of its width, feed-forward 8/3 of it.

    Weights start at deviation 1 / sqrt(width): at the usual 0.02 so narrow a model learns several times more slowly.
    """
    library = transformers()
    config = library.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=max(1, width // 32),
        num_key_value_heads=max(1, width // 32),
        intermediate_size=8 * width // 3,
        max_position_embeddings=context,
        initializer_range=width**-0.5,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model: nn.Module = library.LlamaForCausalLM(config)
    return model
