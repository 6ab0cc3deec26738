"""Weights come back bit for bit; no file that is opened runs code."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.worlds import network
from tests.worlds.bomb import Bomb
from unrecall.disk import weights
from unrecall.errors import BadInput
from unrecall.scenarios.networks import small_cnn


def test_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    model, other = network(seed=1), network(seed=2)
    weights.save(model, path := tmp_path / "a.safetensors")
    assert weights.digest_of_file(path) == weights.digest_of(model) != weights.digest_of(other)
    assert weights.digest_of(weights.load(other, path)) == weights.digest_of(model)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_weights_of_a_wrapped_or_compiled_model_are_read(prefix: str, tmp_path: Path) -> None:
    model, wrapped = network(seed=1), nn.Module()
    save_file({prefix + name: value.clone() for name, value in model.state_dict().items()}, tmp_path / "w.safetensors")
    assert weights.digest_of(weights.load(network(seed=2), tmp_path / "w.safetensors")) == weights.digest_of(model)
    weights.save(model, tmp_path / "plain.safetensors")
    wrapped.add_module(prefix.split(".", maxsplit=1)[0], network(seed=2))
    weights.load(wrapped, tmp_path / "plain.safetensors")
    assert weights.digest_of(wrapped.get_submodule(prefix.split(".", maxsplit=1)[0])) == weights.digest_of(model)


def test_a_weight_under_two_names_is_not_chosen_from(tmp_path: Path) -> None:
    """As a file may hold that has averaged weights beside the model's own."""
    state = {name: value.clone() for name, value in network(seed=1).state_dict().items()}
    first = next(iter(state))
    save_file(state | {f"module.{first}": state[first] + 1}, tmp_path / "w.safetensors")
    with pytest.raises(BadInput, match=f"expected one tensor for {first}, got .*{first} and .*{first}"):
        weights.load(network(seed=2), tmp_path / "w.safetensors")


def test_a_folder_of_several_files_is_read_by_its_index(tmp_path: Path) -> None:
    model = network(seed=1)
    named = {name: value.clone() for name, value in model.state_dict().items()}
    places = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(named)}
    for file in set(places.values()):
        save_file({name: value for name, value in named.items() if places[name] == file}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    assert weights.digest_of(weights.load(network(seed=2), tmp_path)) == weights.digest_of(model)
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(BadInput, match=r"model-1\.safetensors: expected a checkpoint file, got none there"):
        weights.read(tmp_path)
    for broken in ("[]", "{}", '{"weight_map": {"a": "../a"}}'):
        index.write_text(broken)
        with pytest.raises(BadInput, match=r"index\.json: expected"):
            weights.read(tmp_path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.uint8])
def test_weights_of_another_kind_of_number_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    model = network()
    stored = {name: value.clone() for name, value in model.state_dict().items()}
    stored["6.weight"] = stored["6.weight"].mul(100).to(dtype)
    save_file(stored, tmp_path / "w.safetensors")
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(BadInput, match=rf"expected 6\.weight in float32, got {kind}\. Give the weights before"):
        weights.load(model, tmp_path / "w.safetensors")


def test_half_precision_weights_are_read_and_what_overflows_is_refused(tmp_path: Path) -> None:
    model = network()
    half = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    save_file(half, tmp_path / "half.safetensors")
    assert weights.load(network(seed=2), tmp_path / "half.safetensors")[6].weight.dtype == torch.float32  # type: ignore[index]
    save_file({"weight": torch.full((2, 2), 1e6), "bias": torch.zeros(2)}, tmp_path / "large.safetensors")
    with pytest.raises(BadInput, match="expected finite weights in float16, got NaN or infinity in weight"):
        weights.load(nn.Linear(2, 2).half(), tmp_path / "large.safetensors")


def test_digest_sees_every_weight_and_buffer() -> None:
    model = network()
    digests = {weights.digest_of(model)}
    for name, value in model.state_dict().items():
        value.view(-1)[0] += 1
        digests.add(weights.digest_of(model))
        assert len(digests) == len({*digests}), name
    assert len(digests) == 1 + len(model.state_dict())


def spoiled(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        tensors = {key: value.clone() for key, value in network().state_dict().items()}
        change(tensors)
        save_file(tensors, path)

    return make


def truncated(path: Path) -> None:
    weights.save(network(), path)
    path.write_bytes(path.read_bytes()[:-100])


def a_pickle(path: Path) -> None:
    torch.save({"model": Bomb()}, path)


def an_old_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(), protocol=2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "expected a checkpoint file, got none there"),
        (lambda path: path.mkdir(), "expected a checkpoint file, got none there"),
        (truncated, "expected a whole safetensors file, got a damaged or truncated one"),
        (lambda path: path.write_bytes(b""), "got a damaged or truncated one"),
        (lambda path: path.write_text("hello"), "got a damaged or truncated one"),
        (a_pickle, "expected safetensors, got a pickle, which can run code when opened.*Convert it"),
        (an_old_pickle, "got a pickle, which can run code"),
        (lambda path: weights.save(small_cnn(), path), r"expected the weights of this architecture, got missing \["),
        (lambda path: weights.save(nn.Sequential(*network(), nn.Linear(4, 4)), path), r"got unknown \['7.bias', '7.w"),
        (spoiled(lambda t: t.update({"6.bias": torch.zeros(5)})), r"expected 6.bias of shape \(4,\), got \(5,\)"),
        (spoiled(lambda t: t["6.bias"].fill_(torch.nan)), "finite weights in float32, got NaN or infinity in 6.bias"),
        (spoiled(lambda t: t["1.running_var"].fill_(torch.inf)), "finite weights in float32, .* in 1.running_var"),
    ],
    ids=["missing", "folder", "truncated", "empty", "text", "pickle", "old pickle", "other network", "more layers",
         "shape", "nan", "infinite statistics"],
)  # fmt: skip
def test_checkpoints_that_are_refused(make: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    model = network()
    before = weights.digest_of(model)
    path = tmp_path / "model.safetensors"
    make(path)
    with pytest.raises(BadInput, match=message):
        weights.load(model, path)
    assert weights.digest_of(model) == before
    assert not Path(Bomb.path).exists()


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.complex64, torch.int32])
def test_a_count_of_another_kind_of_number_is_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    stored = {name: value.clone() for name, value in network().state_dict().items()}
    stored["1.num_batches_tracked"] = stored["1.num_batches_tracked"].to(dtype)
    save_file(stored, tmp_path / "w.safetensors")
    with pytest.raises(BadInput, match=r"expected 1\.num_batches_tracked in int64, got "):
        weights.load(network(), tmp_path / "w.safetensors")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64])
def test_weights_of_a_byte_each_and_complex_ones_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    stored = {name: value.clone() for name, value in network().state_dict().items()}
    stored["6.weight"] = stored["6.weight"].to(dtype)
    save_file(stored, tmp_path / "w.safetensors")
    with pytest.raises(BadInput, match=r"expected 6\.weight in float32, got (float8|complex)"):
        weights.load(network(), tmp_path / "w.safetensors")


@pytest.mark.parametrize("prefix", ["model.", "net.", "student.", "base_model.model.", "module.net."])
def test_whatever_all_names_begin_with_is_taken_off(prefix: str, tmp_path: Path) -> None:
    model = network(seed=1)
    save_file({prefix + name: value.clone() for name, value in model.state_dict().items()}, tmp_path / "w.safetensors")
    assert weights.digest_of(weights.load(network(seed=2), tmp_path / "w.safetensors")) == weights.digest_of(model)
    weights.save(model, tmp_path / "plain.safetensors")
    outer = nn.Sequential(network(seed=2))
    for file in ("w", "plain"):
        weights.load(outer, tmp_path / f"{file}.safetensors")
        assert weights.digest_of(outer[0]) == weights.digest_of(model)


def test_what_wrappers_put_between_names_is_taken_out(tmp_path: Path) -> None:
    model = network(seed=1)
    stored = {name.replace(".", "._fsdp_wrapped_module.", 1): v.clone() for name, v in model.state_dict().items()}
    save_file(stored, tmp_path / "w.safetensors")
    assert weights.digest_of(weights.load(network(seed=2), tmp_path / "w.safetensors")) == weights.digest_of(model)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("pytorch_model.bin", r"got a pickle \(pytorch_model.bin\).*save_pretrained"),
        ("pytorch_model-00001-of-00002.bin", "got a pickle.*save_pretrained"),
        ("model-00001-of-00002.safetensors", r"expected model\.safetensors\.index\.json beside.*save_pretrained"),
    ],
)
def test_a_folder_of_pickles_or_of_parts_without_an_index_is_refused(file: str, message: str, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(b"PK")
    with pytest.raises(BadInput, match=message):
        weights.load(network(), tmp_path)
