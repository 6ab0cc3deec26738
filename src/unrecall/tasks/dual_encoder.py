"""Two towers that meet in one space, as Transformers has them, as open_clip has them, or as somebody made them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.errors import NotSupported
from unrecall.tasks.base import numbered, opened, parts_of

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
    """Both towers in one call of the model, so that Accelerate's wrapping sees it."""
    inner = unwrapped(model)
    if hasattr(inner, "get_image_features"):
        found = model(pixel_values=pixels, input_ids=tokens, attention_mask=mask)
        return Encoded(found.image_embeds, found.text_embeds, inner.logit_scale.exp())
    return Encoded(pictures(model, pixels), texts(model, tokens, mask), inner.logit_scale.exp())


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


def _pooled(found: Any) -> Tensor:
    """Older versions of Transformers give the tensor itself."""
    pooled: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return pooled


def endings(model: nn.Module) -> list[nn.Module]:
    """The last modules of both towers; what enters them is the last representation."""
    modules = dict(unwrapped(model).named_modules())
    for names in ENDINGS:
        if all(name in modules for name in names):
            return [modules[name] for name in names]
    raise NotSupported(
        f"{type(model).__name__}: expected the last modules of both towers by a known name, got none. Set layers to "
        f"the dotted names of the modules to look at, such as {', '.join(list(modules)[1:6])}."
    )


def blocks(model: nn.Module) -> list[tuple[str, list[nn.Module]]]:
    """The towers' parts in turn, so that the last few are the last of both; what follows the layers is the head."""
    sides = (_tower(model, seen=False), _tower(model, seen=True))
    depth = max(len(side) for side, _ in sides)
    found = []
    for i in range(depth):
        for side, _ in sides:
            if i >= depth - len(side):
                name, module = side[i - depth + len(side)]
                found.append((name, [module]))
    head = [module for _, after in sides for _, module in after]
    return [*found, ("head", head)] if head else found


def _tower(model: nn.Module, *, seen: bool) -> tuple[Sequence[tuple[str, nn.Module]], Sequence[tuple[str, nn.Module]]]:
    """The parts of the tower for pictures (`seen`) or for texts up to its last layer, and those after it."""
    mine = [one for one in parts_of("", unwrapped(model)) if one[0].startswith(("vis", "image")) == seen]
    parts = opened(mine)
    layers = numbered(parts)
    last = next((i for i, (name, _) in enumerate(parts) if layers and name == layers[-1]), len(parts) - 1)
    return parts[: last + 1], parts[last + 1 :]
