"""What an original, and the models retrained beside it, are trained to minimise."""

from unrecall.errors import BadInput, nearest
from unrecall.spec.lines import taken_apart
from unrecall.spec.parameters import annotated, checked
from unrecall.training.objectives.base import Course, Objective, Plain, Start
from unrecall.training.objectives.nib import NIB
from unrecall.training.objectives.ule import ULE

OBJECTIVES: dict[str, type[Objective]] = {"plain": Plain, "nib": NIB, "ule": ULE}

__all__ = ["NIB", "OBJECTIVES", "ULE", "Course", "Objective", "Plain", "Start", "objective_of"]


def objective_of(line: str) -> Objective:
    """The objective that a line names, with a + between its parameters: "plain", "nib:beta=0.001+alpha=1"."""
    spec = taken_apart(line.replace("+", ","))
    kind = OBJECTIVES.get(spec.name.lower())
    if kind is None or spec.base is not None:
        raise BadInput(f"objective: expected {', '.join(OBJECTIVES)}, got '{line}'. {nearest(spec.name, OBJECTIVES)}")
    for name in spec.values.keys() - annotated(kind).keys():
        raise BadInput(f"{kind.__name__}: unknown parameter '{name}'. {nearest(name, annotated(kind))}")
    return kind(**{name: checked(kind, name, text, lax=True) for name, text in spec.values.items()})
