"""The only code that knows a modality."""

from unrecall.tasks.base import Task
from unrecall.tasks.causal_lm import CausalLM
from unrecall.tasks.classification import Classification
from unrecall.tasks.contrastive import Contrastive
from unrecall.tasks.grouped import Grouped
from unrecall.tasks.protocols import Classed, Composed, Exportable, Paired, Perturbable, Ranked, Textual
from unrecall.tasks.recommendation import Recommendation
from unrecall.tasks.transformers_pictures import TransformersPictures
from unrecall.tasks.transformers_texts import TransformersTexts

__all__ = [
    "CausalLM",
    "Classed",
    "Classification",
    "Composed",
    "Contrastive",
    "Exportable",
    "Grouped",
    "Paired",
    "Perturbable",
    "Ranked",
    "Recommendation",
    "Task",
    "Textual",
    "TransformersPictures",
    "TransformersTexts",
]
