"""CIFAR-10 from a folder, in its official binary version or as sheets of pictures; pickles are refused."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from unrecall.data.digests import digest
from unrecall.data.examples import Examples
from unrecall.data.identity import digests_of_rows
from unrecall.disk import weights
from unrecall.errors import BadInput
from unrecall.scenarios.model_cache import TrainingSetup, first, trained_once
from unrecall.scenarios.networks import ResNet, ViT, resnet18, resnet20, small_vit, vit
from unrecall.tasks import Classification
from unrecall.training.loop import Fit
from unrecall.training.randomness import own_randomness
from unrecall.training.session import Session

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ARCHITECTURES = {"resnet18": resnet18, "resnet20": resnet20, "vit": vit, "small-vit": small_vit}
Architecture: TypeAlias = Literal["resnet18", "resnet20", "vit", "small-vit"]


def recipe(arch: Architecture, **sgd: Any) -> Fit:
    """SGD with what is given; for a Vision Transformer AdamW, lr 1e-3, weight decay 0.05, cosine over all its steps."""
    if arch not in ("vit", "small-vit"):
        return Fit(**sgd)
    return Fit(optimizer="adamw", lr=1e-3, weight_decay=0.05, clip=1.0, schedule="cosine", epochs=sgd["epochs"])


class Cifar(NamedTuple):
    """Pictures `[n, 3, 32, 32]` as bytes, and their labels; `train` and `test` are data sets over them."""

    train: "Pictures"
    test: "Pictures"


class Pictures:
    """Items are `(picture in [0, 1] as float32 [3, 32, 32], label)`; `pixels` stay bytes until asked for."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        self.pixels, self.labels = pixels, [int(y) for y in labels]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        return torch.from_numpy(self.pixels[index]).float() / 255, self.labels[index]

    def __getitems__(self, indices: Sequence[int], /) -> list[tuple[Tensor, int]]:
        pictures = torch.from_numpy(self.pixels[list(indices)]).float() / 255
        return [(picture, self.labels[i]) for picture, i in zip(pictures, indices, strict=True)]

    def identities(self, indices: Sequence[int], /) -> list[str]:
        """The sha256 of each picture's bytes, and its label."""
        digests = digests_of_rows([torch.from_numpy(self.pixels)], indices)
        return [f"{text} {self.labels[i]}" for text, i in zip(digests, indices, strict=True)]


class Augmented:
    """The same pictures, each time padded by 4, cropped at random and flipped at random: training only."""

    def __init__(self, pictures: Examples) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        picture, label = self.pictures[index]
        top, left, flip = (int(v) for v in torch.randint(0, 9, (3,)))
        padded = nn.functional.pad(picture, (4, 4, 4, 4))[:, top : top + 32, left : left + 32]
        return (padded.flip(2) if flip % 2 else padded), label


def read_cifar10(folder: Path) -> Cifar:
    """Looks for data_batch_1.bin ... test_batch.bin (official), or the same names as .webp sheets with labels.npz."""
    if not folder.is_dir():
        raise BadInput(f"data={folder}: expected the CIFAR-10 folder, got none there. Name it: data=PATH.")
    for candidate in (folder, folder / "cifar10", folder / "cifar-10-batches-bin"):
        if (candidate / "data_batch_1.bin").exists():
            return _binary(candidate)
        if (candidate / "data_batch_1.webp").exists():
            return _sheets(candidate)
    raise BadInput(
        f"data={folder}: expected CIFAR-10's binary version (data_batch_1.bin ... test_batch.bin), got no such files. "
        "The Python version is made of pickles, which can run code; take the binary one."
    )


def _binary(folder: Path) -> Cifar:
    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        raw = np.fromfile(folder / name, np.uint8)
        if raw.size != 10_000 * 3073:
            raise BadInput(f"{folder / name}: expected 30,730,000 bytes, got {raw.size}. Download it again.")
        table = raw.reshape(10_000, 3073)
        return table[:, 1:].reshape(-1, 3, 32, 32), table[:, 0]

    parts = [read(f"data_batch_{i}.bin") for i in range(1, 6)]
    train = Pictures(np.concatenate([p for p, _ in parts]), np.concatenate([y for _, y in parts]))
    return Cifar(train, Pictures(*read("test_batch.bin")))


def _sheets(folder: Path) -> Cifar:
    from PIL import Image

    labels = np.load(folder / "labels.npz", allow_pickle=False)

    def read(name: str) -> np.ndarray:
        sheet = np.asarray(Image.open(folder / name).convert("RGB"))
        return sheet.reshape(500, 32, 20, 32, 3).transpose(2, 0, 4, 1, 3).reshape(10_000, 3, 32, 32)

    train = np.concatenate([read(f"data_batch_{i}.webp") for i in range(1, 6)])
    return Cifar(Pictures(train, labels["train_y"]), Pictures(read("test_batch.webp"), labels["test_y"]))


@dataclass(frozen=True)
class Pretrained:
    """A network that knows CIFAR-10 and gets a fresh head: from a checkpoint, or trained here and kept in the cache.

    Training here is the paper's (SGD 0.4, momentum 0.9, weight decay 2e-4, batch 128, cosine over 200 epochs; AdamW for
    a Vision Transformer), for `epochs`, with crops and flips.
    """

    cifar: Cifar
    arch: Architecture
    checkpoint: str
    epochs: int
    classes: int

    def __call__(self, seed: int, session: Session) -> nn.Module:
        """The network, its head drawn from `seed`."""
        with own_randomness(0):
            model: nn.Module = ARCHITECTURES[self.arch](10)
        if self.checkpoint:
            load_resnet(model, Path(self.checkpoint))
        else:
            model = self._trained(model, session)
        body = model.get_submodule("1")
        if not isinstance(body, ResNet | ViT):
            raise BadInput(f"{self.arch}: expected a ResNet or a ViT, got {type(body).__name__}.")
        body.linear = nn.Linear(body.linear.in_features, self.classes)
        return model

    def _trained(self, model: nn.Module, session: Session) -> nn.Module:
        """The network once it was taught all ten classes."""
        steps, train, name = -(-50_000 // 128), self.cifar.train, f"cifar10-{self.arch}"
        how = recipe(self.arch, lr=0.4, weight_decay=2e-4, epochs=self.epochs, schedule="cosine", period=200 * steps)
        key = digest((train.pixels, train.labels))
        setup = TrainingSetup(Classification(), Augmented(train), how, 0, key, first(train))
        return trained_once(name, "pretrained", model, setup, session).model


def load_resnet(model: nn.Module, path: Path) -> nn.Module:
    """Weights for one of our ResNets: our own safetensors, or the well-known `.th` checkpoints of CIFAR ResNets."""
    if path.suffix != ".th":
        return weights.load(model, path)
    if not path.is_file():
        raise BadInput(f"weights={path}: expected a checkpoint, got none there. Check the path.")
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise BadInput(
            f"weights={path}: expected a checkpoint of plain tensors, got a damaged or unsafe file."
        ) from error
    renamed = {_renamed(key): value for key, value in state.items()}
    untrained = model.state_dict()
    learned = {key for key in untrained if not key.startswith("0.") and not key.endswith("num_batches_tracked")}
    fitting = {key for key, value in renamed.items() if key in untrained and value.shape == untrained[key].shape}
    if learned != {key for key in renamed if not key.endswith("num_batches_tracked")} or not learned <= fitting:
        raise BadInput(f"weights={path}: expected the weights of this architecture, got others. Check arch.")
    model.load_state_dict({**untrained, **renamed})
    return model


def _renamed(key: str) -> str:
    key = key.removeprefix("module.")
    for i in (1, 2, 3, 4):
        key = key.replace(f"layer{i}.", f"layers.{i - 1}.")
    return f"1.{key}"


def per_class(labels: Sequence[int], classes: Sequence[int], count: int, order: Sequence[int]) -> list[int]:
    """The first `count` indices of each class, in the given order."""
    indices_of: dict[int, list[int]] = {c: [] for c in classes}
    for i in order:
        if labels[i] in indices_of and len(indices_of[labels[i]]) < count:
            indices_of[labels[i]].append(i)
    return sorted(i for group in indices_of.values() for i in group)
