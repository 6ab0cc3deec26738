"""Files are whole or absent, and opening one never runs code."""

import errno
import json
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.worlds import network
from unrecall.disk import files as storage
from unrecall.disk import weights
from unrecall.disk.files import sweep, write_json, write_text, writing, writing_folder
from unrecall.disk.run_folder import ASKED, claim, claimed, content_keys, file_name, records_in
from unrecall.errors import BadInput
from unrecall.scenarios.cifar_data import load_resnet, read_cifar10
from unrecall.scenarios.networks import resnet20, small_cnn


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_an_exception_while_writing_leaves_the_old_file(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(BadInput if error is OSError else error), writing(path) as temporary:
        temporary.write_text("half of the ne")
        raise error
    assert contents(tmp_path) == {"a.txt": b"old"}


def test_what_is_written_has_the_permissions_of_any_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "x")
    (tmp_path / "b.txt").write_text("x")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == stat.S_IMODE((tmp_path / "b.txt").stat().st_mode)


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"ä": 1})
    assert json.loads(path.read_text(encoding="utf-8")) == {"ä": 1}
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(BadInput, match=r"a\.json: expected to be able to write it, got: No space left.*Nothing was ch"):
        write_json(path, {"b": 2})
    assert list(contents(tmp_path)) == ["a.json"]
    assert "ä" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("what", ["weights.save(model, path)", "saved.keep(Progress(model, optimizer, optimizer, g))"])
def test_a_really_full_disk(what: str, tmp_path: Path) -> None:
    """The limit on file sizes makes writes fail as a full disk does, inside safetensors and torch too."""
    script = f"""
import resource, torch
from pathlib import Path
from unrecall.disk import weights
from unrecall.errors import BadInput
from unrecall.training.resume import Progress, Saved
from unrecall.training.session import Session
path = Path({str(tmp_path / "a.safetensors")!r})
model, g = torch.nn.Linear(100, 100), torch.Generator()
optimizer = torch.optim.SGD(model.parameters())
saved = Saved(Session(folder=path.parent, every=0, device="cpu"), "key")
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    {what}
except BadInput as error:
    assert "expected to be able to write it, got:" in str(error), error
    assert not list(path.parent.glob("*")), list(path.parent.glob("*"))
    print("one clear error")
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout == "one clear error\n", done.stderr


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "below", tmp_path / "folder", Path("/proc/nothing/here"), tmp_path / ("n" * 300)):
        with pytest.raises(BadInput, match="expected to be able to write it"):
            write_text(path, "y")
    assert contents(tmp_path) == {"file": b"x"}


def test_unreadable_text(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"ab\xff")
    with pytest.raises(BadInput, match="got other bytes at position 2"):
        storage.read_text(tmp_path / "binary")
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(BadInput, match="expected a readable file, got: "):
            storage.read_text(path)


def test_a_key_that_a_json_object_names_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.json"
    path.write_text('[{"answer": "a", "more": {"b": 1, "b": 2}}]')
    with pytest.raises(BadInput, match="expected JSON, got the key 'b' twice in an object"):
        storage.read_json(path)
    path.write_text('[{"b": 1}, {"b": 2}]')
    assert storage.read_json(path) == [{"b": 1}, {"b": 2}]


def test_keys_are_of_content() -> None:
    assert storage.content_key("a", "b") == storage.content_key("a", "b")
    assert len({storage.content_key(*parts) for parts in (("a", "b"), ("ab",), ("a", "b", ""), ("b", "a"))}) == 4


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


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.path}",))

    path = "/tmp/unrecall-bomb"


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


def test_well_known_resnet_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "resnet.th"
    model = resnet20()
    state = {f"module.{key}": value for key, value in model[1].state_dict().items()}
    for i in range(3):
        state = {key.replace(f"layers.{i}", f"layer{i + 1}"): value for key, value in state.items()}
    torch.save({"state_dict": state}, path)
    assert weights.digest_of(load_resnet(resnet20(), path)) == weights.digest_of(model)
    for content, message in (({"state_dict": Bomb()}, "unsafe"), ({}, "unsafe"), ({"state_dict": {}}, "architecture")):
        torch.save(content, path)
        with pytest.raises(BadInput, match=message):
            load_resnet(resnet20(), path)
    torch.save({"state_dict": {**state, "module.linear.bias": torch.zeros(5)}}, path)
    with pytest.raises(BadInput, match="weights of this architecture"):
        load_resnet(resnet20(), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BadInput, match="damaged or unsafe"):
        load_resnet(resnet20(), path)
    assert not Path(Bomb.path).exists()


def test_cifar_folder_must_hold_the_binary_version(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"expected the CIFAR-10 folder, got none there\. Name it"):
        read_cifar10(tmp_path / "nowhere")
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02")
    with pytest.raises(BadInput, match="made of pickles, which can run code"):
        read_cifar10(tmp_path)
    (tmp_path / "data_batch_1.bin").write_bytes(b"\x00" * 10)
    with pytest.raises(BadInput, match="expected 30,730,000 bytes, got 10"):
        read_cifar10(tmp_path)


def test_a_folder_belongs_to_one_run(tmp_path: Path) -> None:
    asked = {"command": "run", "method": "rurk"}
    folder = claim(tmp_path / "a" / "b", asked)
    assert claim(folder, asked) == folder
    with pytest.raises(BadInput, match=r"got another run \(its method differ\)"):
        claim(folder, asked | {"method": "ssd"})
    assert json.loads((folder / ASKED).read_text()) == asked
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("x")
    with pytest.raises(BadInput, match="got files that are no run's"):
        claim(tmp_path / "own", asked)
    with pytest.raises(BadInput, match="expected a folder, got a file"):
        claim(tmp_path / "own" / "thesis.txt", asked)
    with pytest.raises(BadInput, match="got a damaged file"):
        (folder / ASKED).write_text("{")
        claim(folder, asked)
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / f".{ASKED}.123.part").write_text("{")
    assert claim(tmp_path / "killed", asked), "a claim that was killed can be made again"


def test_bad_input_leaves_the_disk_as_it_was(tmp_path: Path) -> None:
    for folder, new in ((tmp_path / "new", True), (tmp_path / "mine", False)):
        if not new:
            folder.mkdir()
        with pytest.raises(BadInput), claimed(folder, {"command": "run"}):
            (folder / "parts" / "deep").mkdir(parents=True)
            raise BadInput("no")
        assert folder.exists() != new
    with pytest.raises(BadInput), claimed(tmp_path / "new", {"command": "run"}):
        write_text(tmp_path / "new" / "parts" / "done.json", "{}")
        raise BadInput("later")
    assert sorted(contents(tmp_path)) == ["new/parts/done.json", f"new/{ASKED}"], "what was done is not lost"
    with pytest.raises(KeyboardInterrupt), claimed(tmp_path / "stopped", {"command": "run"}):
        raise KeyboardInterrupt
    assert (tmp_path / "stopped" / ASKED).exists()


def test_files_that_a_run_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("case.py").write_text("1")
    Path("indices.txt").write_text("2")
    Path("my idx.txt").write_text("2")
    named = content_keys("case.py", "indices.txt", "my idx.txt", "share:0.25", "")
    assert list(named) == ["case.py", "indices.txt", "my idx.txt"]
    Path("case.py").write_text("2")
    assert content_keys("case.py")["case.py"] == named["indices.txt"] != named["case.py"]


def test_a_python_file_counts_with_what_it_imports_and_a_folder_with_all_that_lies_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("case.py").write_text("import helper, torch")
    Path("model/deep").mkdir(parents=True)
    keys = []
    for number in range(2):
        Path("helper.py").write_text(f"SCALE = {number}")
        Path("model/deep/weights").write_text(str(number))
        os.utime("model/deep/weights", (0, 0))
        keys.append(content_keys("case.py", "model"))
    assert all(keys[0][name] != keys[1][name] for name in ("case.py", "model"))


def test_names_of_folders_differ_where_the_texts_do() -> None:
    texts = ["finetune:lr=1e-1", "finetune:lr=1e+1", "spotter(salun):share=0.5", "spotter(salun:share=0.5)", "rurk"]
    names = [file_name(text) for text in texts]
    assert len(set(names)) == len(texts)
    assert names[-1] == "rurk"
    assert len({file_name(text).lower() for text in ("ssd", "SSD", "Ssd", "ssd:lr=1E-1", "ssd:lr=1e-1")}) == 5
    long = "finetune:" + ",".join(f"lr={i}" for i in range(200))
    assert len(file_name(long)) < 150
    assert file_name(long) != file_name(long + "0")
    assert names[2].startswith("spotter-salun--share=0.5-")


def test_what_a_killed_process_left_is_swept_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    with writing(tmp_path / "a" / "whole") as alive:
        orphan = tmp_path / "a" / ".lost.x1.part"
        orphan.write_text("half")
        sweep(tmp_path)
        assert alive.exists()
        assert not orphan.exists()
    assert (tmp_path / "a" / "whole").exists()


def test_a_folder_is_whole_or_absent_and_what_a_killed_process_left_of_it_goes(tmp_path: Path) -> None:
    left = tmp_path / ".model.x1.part"
    left.mkdir()
    (left / "half").write_text("x")
    (tmp_path / "model").mkdir()
    write_text(tmp_path / "model" / "old", "x")
    with writing_folder(tmp_path / "model") as first, writing_folder(tmp_path / "model") as second:
        assert first != second
        assert not left.exists()
        sweep(tmp_path)
        write_text(first / "new", "1")
        write_text(second / "new", "2")
    assert contents(tmp_path) == {"model/new": b"1"}
    mode = stat.S_IMODE((tmp_path / "model").stat().st_mode)
    (tmp_path / "other").mkdir()
    assert mode == stat.S_IMODE((tmp_path / "other").stat().st_mode)
    with pytest.raises(RuntimeError), writing_folder(tmp_path / "model") as third:
        write_text(third / "new", "half")
        raise RuntimeError
    assert contents(tmp_path) == {"model/new": b"1"}
    left.mkdir()
    sweep(tmp_path)
    assert not left.exists()


def test_a_disk_without_locks_is_written_to_and_nothing_of_others_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr("fcntl.flock", unsupported)
    (tmp_path / ".a.txt.x1.part").write_text("of somebody")
    write_text(tmp_path / "a.txt", "whole")
    sweep(tmp_path)
    assert contents(tmp_path) == {"a.txt": b"whole", ".a.txt.x1.part": b"of somebody"}


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with writing(tmp_path / "file") as first, writing(tmp_path / "file") as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert (tmp_path / "file").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_records_are_found_below_folders(tmp_path: Path) -> None:
    for name in ("b/record.json", "a/x/record.json", "a/other.json"):
        write_text(tmp_path / name, "{}")
    assert records_in([tmp_path]) == [tmp_path / "a/x/record.json", tmp_path / "b/record.json"]
    assert records_in([tmp_path / "a/other.json"]) == [tmp_path / "a/other.json"]
    for path, message in ((tmp_path / "c", "got nothing there"), (tmp_path / "a" / "x" / "y", "got nothing")):
        with pytest.raises(BadInput, match=message):
            records_in([path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"expected at least one record\.json below it"):
        records_in([tmp_path / "empty"])


def test_records_are_found_behind_links_to_folders_and_each_once(tmp_path: Path) -> None:
    write_text(tmp_path / "runs/a/record.json", "{}")
    links = tmp_path / "links"
    links.mkdir()
    (links / "there").symlink_to(tmp_path / "runs")
    assert records_in([links]) == [links / "there/a/record.json"]
    (tmp_path / "runs/again").symlink_to(tmp_path / "runs/a")
    (tmp_path / "runs/round").symlink_to(tmp_path / "runs")
    assert records_in([tmp_path / "runs"]) == [tmp_path / "runs/a/record.json"]


def test_a_file_that_was_being_written_when_its_writer_was_killed_goes_with_the_next_writing(tmp_path: Path) -> None:
    (tmp_path / ".page.html.x1.part").write_text("half")
    (tmp_path / ".other.html.x1.part").write_text("half of another")
    write_text(tmp_path / "page.html", "whole")
    assert contents(tmp_path) == {"page.html": b"whole", ".other.html.x1.part": b"half of another"}


def test_a_run_that_was_killed_while_it_claimed_its_folder_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / ".run.json.x1.part").write_text("{")
    assert claim(tmp_path, {"command": "run"}) == tmp_path
    assert list(contents(tmp_path)) == [ASKED]


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


@pytest.mark.parametrize("damage", ["", "hello", "[1]"])
def test_a_damaged_note_of_what_was_asked_is_named_with_the_way_out(damage: str, tmp_path: Path) -> None:
    claim(tmp_path, {"command": "run"})
    (tmp_path / ASKED).write_text(damage)
    with pytest.raises(
        BadInput, match=r"run\.json: expected what this run .* got a damaged file. Choose another --out"
    ):
        claim(tmp_path, {"command": "run"})
    assert contents(tmp_path) == {ASKED: damage.encode()}


def test_a_private_file_is_its_owners_alone_and_so_is_its_new_folder(tmp_path: Path) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    write_text(tmp_path / "a" / "b" / "secret.json", "{}", private=True)
    assert mode(tmp_path / "a" / "b" / "secret.json") == 0o600
    assert mode(tmp_path / "a" / "b") == 0o700
    write_text(tmp_path / "a" / "b" / "page.html", "")
    assert mode(tmp_path / "a" / "b" / "page.html") & 0o600 == 0o600
    assert mode(tmp_path / "a" / "b" / "page.html") != 0o600
