"""The architectures of the built-in scenarios; normalisation is the first layer, so pixels stay in [0, 1] outside."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.scenarios.hub import transformers


class Normalize(nn.Module):
    """Subtracts a mean and divides by a deviation, both per channel; they are buffers and travel with the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """`[n, channels, height, width]` in, the same shape out."""
        return (inputs - self.mean) / self.std


def small_cnn(classes: int = 10, channels: int = 1) -> nn.Sequential:
    """Three convolutions with BatchNorm for 8 x 8 pictures, grey or in colour; 28 thousand parameters."""
    return nn.Sequential(
        Normalize((0.3,) * channels, (0.35,) * channels),
        *_convolved(channels, 16, stride=1),
        *_convolved(16, 32, stride=2),
        *_convolved(32, 64, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes),
    )


def _convolved(inner: int, outer: int, stride: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()


class _Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut: padded with zero channels ("A") or projected ("B")."""

    def __init__(self, inner: int, outer: int, stride: int, option: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.stride, self.extra = stride, outer - inner
        self.shortcut = nn.Sequential()
        if option == "B" and (stride > 1 or inner != outer):
            self.shortcut = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = F.relu(self.bn1(self.conv1(inputs)))
        hidden = self.bn2(self.conv2(hidden))
        if len(self.shortcut):
            return F.relu(hidden + self.shortcut(inputs))
        short = inputs[:, :, :: self.stride, :: self.stride]
        return F.relu(hidden + F.pad(short, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2)))


class ResNet(nn.Module):
    """A residual network for 32 x 32 pictures: a 3 x 3 stem without pooling, then groups of blocks.

    Reference: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385, section 4.2.
    """

    def __init__(self, blocks: tuple[int, ...], widths: tuple[int, ...], classes: int, option: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        inner, groups = widths[0], []
        for i, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            strides = [1 if i == 0 else 2] + [1] * (count - 1)
            group = []
            for stride in strides:
                group.append(_Block(inner, width, stride, option))
                inner = width
            groups.append(nn.Sequential(*group))
        self.layers = nn.Sequential(*groups)
        self.linear = nn.Linear(inner, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """`[n, 3, 32, 32]` in, logits `[n, classes]` out."""
        hidden = self.layers(F.relu(self.bn1(self.conv1(inputs))))
        logits: Tensor = self.linear(hidden.mean((2, 3)))
        return logits


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def resnet20(classes: int = 10) -> nn.Sequential:
    """ResNet-20 with option-A shortcuts, 0.27 million parameters, with ImageNet's normalisation in front."""
    return nn.Sequential(Normalize(*IMAGENET), ResNet((3, 3, 3), (16, 32, 64), classes, "A"))


def resnet18(classes: int = 10) -> nn.Sequential:
    """ResNet-18 with a CIFAR stem and projected shortcuts, 11 million parameters."""
    return nn.Sequential(Normalize(*IMAGENET), ResNet((2, 2, 2, 2), (64, 128, 256, 512), classes, "B"))


class ViT(nn.Module):
    """A Vision Transformer of Transformers' for 32 x 32 pictures, with a linear head on what its class token became.

    Reference: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, arXiv 2010.11929.
    """

    def __init__(self, width: int, depth: int, patch: int, classes: int) -> None:
        super().__init__()
        library = transformers()
        config = library.ViTConfig(
            image_size=32,
            patch_size=patch,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=depth,
            num_attention_heads=max(1, width // 32),
        )
        self.body: nn.Module = library.ViTModel(config, add_pooling_layer=False)
        self.linear = nn.Linear(width, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """`[n, 3, 32, 32]` in, logits `[n, classes]` out."""
        logits: Tensor = self.linear(self.body(pixel_values=inputs).last_hidden_state[:, 0])
        return logits


def vit(classes: int = 10) -> nn.Sequential:
    """A Vision Transformer of 6 layers of width 192 over patches of 4, 2.7 million parameters, normalised in front."""
    return nn.Sequential(Normalize(*IMAGENET), ViT(192, 6, 4, classes))


def small_vit(classes: int = 10) -> nn.Sequential:
    """The same with 4 layers of width 96, 0.5 million parameters: what two cores can train."""
    return nn.Sequential(Normalize(*IMAGENET), ViT(96, 4, 4, classes))
