"""Hyper-parameters that check themselves: a frozen dataclass whose annotations carry the allowed ranges."""

import inspect
import types
import typing
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, TypeAlias, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from unrecall.errors import BadInput

Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
ProperShare: TypeAlias = Annotated[float, Field(gt=0, lt=1)]
Count: TypeAlias = Annotated[int, Field(ge=1)]
Index: TypeAlias = Annotated[int, Field(ge=0)]


NUMBERS = {"float_parsing": "a number", "int_parsing": "a whole number", "int_type": "a whole number"}
"""What was expected where a text is no number, by pydantic's name for that."""


def annotated(owner: Any) -> dict[str, Any]:
    """The resolved annotation of each field of a dataclass, ranges included."""
    return _annotated(owner)


@cache
def _annotated(owner: Any) -> dict[str, Any]:
    hints = get_type_hints(owner, include_extras=True)
    return {field.name: hints[field.name] for field in fields(owner)}


def nested_types(hint: Any) -> tuple[type, ...]:
    """The classes that a parameter may be an instance of where it has parameters of its own; empty otherwise."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    kinds = tuple(kind for kind in options if isinstance(kind, type))
    return kinds if any(issubclass(kind, Parameters) for kind in kinds) else ()


@cache
def _adapter(owner: Any, name: str) -> TypeAdapter[Any]:
    return TypeAdapter(annotated(owner)[name])


def checked(owner: Any, name: str, value: Any, *, lax: bool = False, subject: str = "") -> Any:
    """`value` as the field `name` of `owner` takes it; BadInput says what was expected. `lax` also reads text.

    `subject`: whose parameter the error names, "RURK: expected fit.lr" say; the owner's own where it is left out.
    """
    nested, subject = nested_types(annotated(owner)[name]), subject or f"{owner.__name__}: expected {name}"
    if nested:
        if not isinstance(value, nested):
            names = " or ".join(kind.__name__ for kind in nested)
            raise BadInput(f"{subject} to be {names}, got {value!r}.")
        return value
    try:
        return _adapter(owner, name).validate_python(value, strict=not lax)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        reason = NUMBERS.get(first["type"], reason)
        raise BadInput(f"{subject} to be {reason}, got {value!r}.") from error


def takes(function: object, count: int) -> bool:
    """Whether something can be called with so many arguments by position; True where Python can't tell."""
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:
        return True
    return True


@dataclass(frozen=True)
class Parameters:
    """Base of everything with hyper-parameters: methods, attacks, scenarios, training recipes."""

    def __post_init__(self) -> None:
        for name in annotated(type(self)):
            value = checked(type(self), name, getattr(self, name))
            if isinstance(value, str | int | float | bool | tuple):
                object.__setattr__(self, name, value)

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name, nested where a parameter has parameters of its own; ready for JSON."""
        return {name: _plain(getattr(self, name)) for name in annotated(type(self))}


def _plain(value: Any) -> Any:
    if isinstance(value, Parameters):
        return {"name": type(value).__name__, **value.as_dict()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return value if isinstance(value, str | int | float | bool | types.NoneType) else str(value)
