"""Language models and tokenizers: loaded as Transformers users have them, or small ones made here."""

import importlib
import os
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from safetensors import SafetensorError
from torch import nn

from unrecall.disk.files import read_json
from unrecall.disk.weights import files_of, formats, precision_of, rounded
from unrecall.errors import BadInput, MissingDependency
from unrecall.nn.usable import BEFORE_QUANTISING

Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]
"""Which numbers a model is computed in, and written in: auto computes in float32 and writes as the files are."""
SPECIAL = ("<pad>", "<s>", "</s>")

BROKEN = (AttributeError, ImportError, LookupError, OSError, RuntimeError, SafetensorError, TypeError, ValueError)
"""What Transformers and PEFT raise over files that are not what they should be."""

PATIENCE = 2.0
"""Seconds that the hub has to answer at all; it is asked twice."""

FILES = ["*.json", "*.jinja", "*.model", "*.safetensors", "*.txt"]
"""What a model and its tokenizer are made of on the hub; pickles are left there."""


class Loaded(NamedTuple):
    """A model, in eval mode, and the tokenizer that belongs to it.

    `precision`: the number format in which what is made of the model is written.
    """

    model: nn.Module
    tokenizer: Any
    precision: str = "float32"


def transformers() -> Any:
    """The package, with its own progress bars and advice off; MissingDependency with the install line otherwise."""
    try:
        library: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise MissingDependency("transformers", "llm") from error
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    return library


def load(name: str, precision: Precision = "auto", adapter: str = "") -> Loaded:
    """A model and its tokenizer from a local folder or a hub id, with a LoRA `adapter` merged where one is named.

    `precision` "auto": the model is held in float32, whatever its files are in, and written as they are. Trained in 16
    bits it would lose every step below 1/256 of a weight (bfloat16) or overflow (float16). Only safetensors are read,
    and no code of the folder's runs. Raises BadInput where nothing is there, the hub can't be reached, the checkpoint
    lacks weights or has some that are no floats, or the adapter belongs to another base.
    """
    library = transformers()
    folder = name if name and Path(name).is_dir() else _from_hub(name)
    if (Path(folder) / "adapter_config.json").is_file():
        raise BadInput(
            f"{name}: expected a whole model, got an adapter. Name its base as the model, and it as the adapter."
        )
    check_unquantised(name, Path(folder) / "config.json")
    check_floats(name, files := files_of(Path(folder)))
    model, report = load_or_refuse(
        f"{name}: expected a Transformers causal language model with its weights in safetensors",
        lambda: library.AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32 if precision == "auto" else getattr(torch, precision),
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        ),
    )
    lacking = [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]
    check_whole(f"{name}: expected a causal language model", lacking)
    check_floats(name, files, model)
    tokenizer = load_or_refuse(
        f"{name}: expected the model's tokenizer beside it",
        lambda: library.AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
    )
    written = precision_of(files) if precision == "auto" else precision
    model.config._name_or_path = name
    return Loaded(rounded(with_adapter(model, adapter, name), written) if adapter else model.eval(), tokenizer, written)


def check_unquantised(name: str, config: Path) -> None:
    """BadInput where a folder says that its weights are quantised, by whatever method."""
    content = read_json(config) if config.is_file() else {}
    if isinstance(content, dict) and (how := content.get("quantization_config")):
        method = how.get("quant_method") if isinstance(how, dict) else None
        method = method or ("bitsandbytes" if "bnb" in str(how) or "load_in" in str(how) else "an unknown method")
        raise BadInput(f"{name}: expected weights in floats, got quantised ones ({method}). {BEFORE_QUANTISING}")


FLOATS = {"F16", "BF16", "F32", "F64"}
"""How safetensors calls the formats of weights as they were trained."""


def check_floats(owner: str, files: Iterable[Path], model: nn.Module | None = None) -> None:
    """BadInput where a weight in these files is in whole numbers, single bytes, complex or truth values.

    A weight is what is called so and, by its name or how that ends, what `model` has in floats. What else a file holds,
    such as positions and masks, may be in whole numbers.
    """
    state = {} if model is None else model.state_dict()
    weight_names = {ending for name, value in state.items() if value.is_floating_point() for ending in _endings(name)}
    for file in files:
        for name, kind in formats(file).items():
            is_weight = name.endswith("weight") or not weight_names.isdisjoint(_endings(name))
            if is_weight and kind not in FLOATS:
                raise BadInput(f"{owner}: expected weights in floats, got {name} in {kind}. {BEFORE_QUANTISING}")


def _endings(name: str) -> list[str]:
    """A weight's name in its model, in the one that holds that, and in the first part of it."""
    return [name, name.partition(".")[2]]


def load_or_refuse(expected: str, opening: Callable[[], Any]) -> Any:
    """What `opening` gives; where it fails, BadInput with what was expected and the reason in one line."""
    try:
        return opening()
    except BROKEN as error:
        line = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"{expected}, got: {line[:300]}") from error


def check_whole(expected: str, lacking: Iterable[str]) -> None:
    """BadInput, beginning with what was expected, where a checkpoint is `lacking` weights."""
    if names := sorted(lacking):
        raise BadInput(
            f"{expected} whose checkpoint holds every weight, got none that fits {names[0]} ({len(names)} in all). "
            "Check that config.json and weights belong together."
        )


def local_folder(name: str, kind: str) -> Path:
    """The folder of a model: the one that is named, or the local copy of that of a hub id with its owner, `who/what`.

    BadInput, which says of what `kind` it was to be, where there is none.
    """
    if Path(name).is_dir() and name:
        return Path(name)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return Path(_from_hub(name))
    raise BadInput(f"{name or 'model'}: expected a folder with {kind}, got nothing there.")


@cache
def _from_hub(name: str) -> str:
    """The local copy of a hub model, completed where the hub can be reached; says at once where there is none."""
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or not name:
        raise BadInput(f"{name or 'model'}: expected a folder with a Transformers model, got nothing there.")
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    reason: Exception | str = "HF_HUB_OFFLINE is set"
    if not constants.HF_HUB_OFFLINE and not os.environ.get("HF_HUB_OFFLINE"):
        try:
            HfApi().model_info(name, timeout=PATIENCE)
            return str(snapshot_download(name, allow_patterns=FILES))
        except (HfHubHTTPError, OSError, RuntimeError, ValueError) as error:
            reason = error
        except Exception as error:
            # The hub's HTTP library raises errors of its own that share no base with the built-in ones.
            if type(error).__module__.split(".")[0] not in ("httpx", "httpx2", "httpcore", "httpcore2", "requests"):
                raise
            reason = error
    try:
        return str(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError) as error:
        line = (str(reason).strip().splitlines() or [type(reason).__name__])[0].rstrip(".")
        raise BadInput(
            f"{name}: expected a folder or a hub id that can be reached, got no such folder, and from the hub: {line}. "
            "Give the path of a local folder that holds config.json, the weights and the tokenizer."
        ) from error


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
