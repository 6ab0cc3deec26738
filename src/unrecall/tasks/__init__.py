"""The only code that knows a modality."""

from unrecall.tasks.base import Perturbable, Task
from unrecall.tasks.classification import Classification

__all__ = ["Classification", "Perturbable", "Task"]
