"""The only code that knows a modality."""

from unrecall.tasks.base import Classed, Perturbable, Task, Textual
from unrecall.tasks.causal_lm import CausalLM
from unrecall.tasks.classification import Classification

__all__ = ["CausalLM", "Classed", "Classification", "Perturbable", "Task", "Textual"]
