"""Language models and tokenizers: loaded as Transformers users have them, or small ones made here."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from unrecall.disk.weights import files_of, precision_of, rounded
from unrecall.errors import BadInput, MissingDependency
from unrecall.scenarios.hub import (
    BROKEN,
    Loaded,
    check_floats,
    check_whole,
    from_hub,
    load_or_refuse,
    open_model,
    transformers,
)

Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]
"""Which numbers a model is computed in, and written in: auto computes in float32 and writes as the files are."""
SPECIAL = ("<pad>", "<s>", "</s>")


def load(name: str, precision: Precision = "auto", adapter: str = "") -> Loaded:
    """A model and its tokenizer from a local folder or a hub id, with a LoRA `adapter` merged where one is named.

    `precision` "auto": the model is held in float32, whatever its files are in, and written as they are. Trained in 16
    bits it would lose every step below 1/256 of a weight (bfloat16) or overflow (float16). Only safetensors are read,
    and no code of the folder's runs. Raises BadInput where nothing is there, the hub can't be reached, the checkpoint
    lacks weights or has some that are no floats, or the adapter belongs to another base.
    """
    folder = Path(name if name and Path(name).is_dir() else from_hub(name))
    if (folder / "adapter_config.json").is_file():
        raise BadInput(
            f"{name}: expected a whole model, got an adapter. Name its base as the model, and it as the adapter."
        )
    model, lacking = open_model(
        "AutoModelForCausalLM",
        folder,
        name,
        "a Transformers causal language model with its weights in safetensors",
        dtype=torch.float32 if precision == "auto" else getattr(torch, precision),
    )
    check_whole(f"{name}: expected a causal language model", lacking)
    tokenizer = load_or_refuse(
        f"{name}: expected the model's tokenizer beside it",
        lambda: transformers().AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
    )
    written = precision_of(files_of(folder)) if precision == "auto" else precision
    model.config._name_or_path = name
    return Loaded(rounded(with_adapter(model, adapter, name), written) if adapter else model.eval(), tokenizer, written)


ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""What a folder with an adapter of PEFT holds, and all that decides what the adapter does."""


def check_adapter(folder: Path) -> None:
    """BadInput where a folder lacks a file of an adapter; a pickle of its weights is none."""
    for file in ADAPTER_FILES:
        if not (folder / file).is_file():
            pickled = file != ADAPTER_FILES[0] and (folder / "adapter_model.bin").is_file()
            got = "a pickle, which can run code when opened: save the adapter anew" if pickled else "none there"
            raise BadInput(f"{folder}: expected a folder with {file}, got {got}.")


def with_adapter(model: nn.Module, adapter: str, name: str = "") -> nn.Module:
    """The model, changed in place, with a LoRA adapter merged into its weights.

    `name`: what the model is called, to be compared with what the adapter says. BadInput where they differ, or the
    adapter's weights don't fit.
    """
    try:
        from peft import PeftConfig, get_peft_model
    except ImportError as error:
        raise MissingDependency("peft", "llm") from error
    check_adapter(Path(adapter))
    check_floats(adapter, [Path(adapter) / "adapter_model.safetensors"])
    config = load_or_refuse(f"{adapter}: expected an adapter of PEFT", lambda: PeftConfig.from_pretrained(adapter))
    base, of = str(config.base_model_name_or_path or ""), name or "the model before unlearning"
    other = BadInput(
        f"{adapter}: expected an adapter of {of}, got one made for {base or 'another model'}. "
        "Name the model that it was trained on."
    )
    unfit = BadInput(f"{adapter}: expected an adapter of {of}, got weights that don't fit it. Save the adapter again.")
    comparable = Path(base).is_dir() == Path(name).is_dir()  # two folders that exist, or two names that are none
    if name and base and base != name and comparable and Path(base).resolve() != Path(name).resolve():
        raise other
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what doesn't fit is an error below
        try:
            wrapped = get_peft_model(model, config)
            report = wrapped.load_adapter(adapter, "default", torch_device="cpu")
            merged: nn.Module = wrapped.merge_and_unload()
        except BROKEN as error:
            raise other if base != name else unfit from error
    if report.missing_keys or report.unexpected_keys:
        raise other if base != name else unfit
    vars(merged).pop("peft_config", None)  # older versions of PEFT leave it there
    vars(merged.config)["_name_or_path"] = ""  # this model lies nowhere, so no adapter can name it as its base
    return merged.requires_grad_(True).eval()


def trained_tokenizer(texts: Iterable[str], size: int) -> Any:
    """A byte-level BPE tokenizer of `size` tokens, trained on `texts`; the same texts give the same tokenizer."""
    library = transformers()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    pad, begin, end = SPECIAL
    tokenizer.post_processor = processors.TemplateProcessing(
        f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )
    return library.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, bos_token=begin, eos_token=end)


def small_llama(tokenizer: Any, width: int, depth: int, context: int) -> nn.Module:
    """An untrained Llama with tied embeddings; one head for each 32 of its width, feed-forward 8/3 of it.

    Weights start at deviation 1 / sqrt(width): at the usual 0.02 so narrow a model learns more slowly (LOG.md).
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
