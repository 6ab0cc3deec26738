"""What the readers of CIFAR-10 and of well-known ResNets refuse."""

from pathlib import Path

import pytest
import torch

from tests.worlds.bomb import Bomb
from unrecall.disk import weights
from unrecall.errors import BadInput
from unrecall.scenarios.cifar_data import load_resnet, read_cifar10
from unrecall.scenarios.networks import resnet20


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
