"""Two towers that meet in one space, as Transformers has them, as open_clip has them, or as somebody made them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.errors import NotSupported
from unrecall.tasks.base import Parts, down_to_layers, parts_of, split_after_layers

ENDINGS = (
    ("visual_projection", "text_projection"),
    ("visual.ln_post", "ln_final"),
    ("visual.ln_post", "text.ln_final"),
)
"""Names of the last modules of both towers: Transformers' CLIP, open_clip's, and open_clip's with a text tower."""


class Encoded(NamedTuple):
    """Unit vectors `[n, d]` of pictures and of texts, and what their cosines are multiplied by, `[]`."""

    pictures: Tensor
    texts: Tensor
    scale: Tensor


def encoded(model: nn.Module, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Encoded:
    """Both towers, and in one call of a model that another wraps, so that the wrapping sees it."""
    inner = unwrapped(model)
    scale: Tensor = inner.logit_scale.exp()
    if hasattr(inner, "get_image_features"):
        output = model(pixel_values=pixels, input_ids=tokens, attention_mask=mask)
        return Encoded(output.image_embeds, output.text_embeds, scale)
    if inner is model:
        return Encoded(pictures(model, pixels), texts(model, tokens, mask), scale)
    both = model(pixels, tokens)
    first, second = list(both.values() if isinstance(both, Mapping) else both)[:2]
    return Encoded(F.normalize(first, dim=1), F.normalize(second, dim=1), scale)


def pictures(model: nn.Module, pixels: Tensor) -> Tensor:
    """Unit vectors `[n, d]`."""
    inner = unwrapped(model)
    if hasattr(inner, "get_image_features"):
        return F.normalize(_pooled(inner.get_image_features(pixel_values=pixels)), dim=1)
    return F.normalize(inner.encode_image(pixels), dim=1)


def texts(model: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """Unit vectors `[n, d]`; only Transformers' models are told where the padding is."""
    inner = unwrapped(model)
    if hasattr(inner, "get_text_features"):
        return F.normalize(_pooled(inner.get_text_features(input_ids=tokens, attention_mask=mask)), dim=1)
    return F.normalize(inner.encode_text(tokens), dim=1)


def unwrapped(model: nn.Module) -> Any:
    """The dual encoder itself; NotSupported for a model that lacks what makes one."""
    inner: Any = getattr(model, "module", model)
    for names in (("get_image_features", "get_text_features"), ("encode_image", "encode_text")):
        if all(hasattr(inner, name) for name in (*names, "logit_scale")):
            return inner
    raise NotSupported(
        "Contrastive: expected a dual encoder (Transformers' CLIP, open_clip's, or a module with encode_image, "
        f"encode_text and logit_scale), got {type(inner).__name__}."
    )


class Limits(NamedTuple):
    """How many tokens a text may have, and how many different ones there are; None where the model doesn't say."""

    context: int | None
    words: int | None


def limits(model: nn.Module) -> Limits:
    """What Transformers' configuration, or open_clip's model, says of its texts."""
    inner = unwrapped(model)
    config = getattr(getattr(inner, "config", None), "text_config", None)
    context = getattr(config, "max_position_embeddings", getattr(inner, "context_length", None))
    return Limits(context, getattr(config, "vocab_size", getattr(inner, "vocab_size", None)))


def _pooled(output: Any) -> Tensor:
    """Older versions of Transformers give the tensor itself."""
    pooled: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return pooled


def endings(model: nn.Module) -> list[nn.Module]:
    """The last modules of both towers, pictures first; what enters them is the last representation."""
    modules = dict(unwrapped(model).named_modules())
    for names in ENDINGS:
        if all(name in modules for name in names):
            return [modules[name] for name in names]
    sides = [[*parts, *after] for parts, after in (_tower(model, pictured=True), _tower(model, pictured=False))]
    if not all(sides):
        raise NotSupported(
            f"{type(model).__name__}: expected a tower for pictures whose name starts with vis or image, and one for "
            f"texts, got {', '.join(name for side in sides for name, _ in side) or 'none'}. Rename the towers."
        )
    return [side[-1][1] for side in sides]


def blocks(model: nn.Module) -> list[tuple[str, list[nn.Module]]]:
    """The towers' parts in turn, so that the last few are the last of both; what follows the layers is the head."""
    sides = (_tower(model, pictured=False), _tower(model, pictured=True))
    depth = max(len(side) for side, _ in sides)
    ends = [side[i] for i in range(-depth, 0) for side, _ in sides if -i <= len(side)]
    blocks = [(name, [module]) for name, module in ends]
    head = [module for _, after in sides for _, module in after]
    return [*blocks, ("head", head)] if head else blocks


def _tower(model: nn.Module, *, pictured: bool) -> tuple[Parts, Parts]:
    """The parts of the tower for pictures (`pictured`) or for texts up to its last layer, and those after it."""
    own = [part for part in parts_of("", unwrapped(model)) if part[0].startswith(("vis", "image")) == pictured]
    # open_clip's models hold the embedding of their words after the layers.
    return split_after_layers(sorted(down_to_layers(own), key=lambda part: not isinstance(part[1], nn.Embedding)))
