"""Every number that an audit takes without attacking, as a table of contents; attacks bring numbers of their own."""

from unrecall.metrics.answers import ANSWERS
from unrecall.metrics.base import Measured, Metric
from unrecall.metrics.class_margin import CLASS_MARGIN
from unrecall.metrics.completeness import COMPLETENESS
from unrecall.metrics.contamination import CONTAMINATION
from unrecall.metrics.cost import COST
from unrecall.metrics.forgetting import DISAGREEMENT, FORGET_ACCURACY, HOLDOUT_ACCURACY, INTRA_CLASS_COSINE
from unrecall.metrics.gap import AVERAGE_GAP
from unrecall.metrics.members_left import MEMBERS_LEFT
from unrecall.metrics.over_unlearning import OVER_UNLEARNING
from unrecall.metrics.ranking import RANKING
from unrecall.metrics.retrieval import RETRIEVAL
from unrecall.metrics.truth import EXTRACTION_STRENGTH, FORGET_PROBABILITY, RETAIN_PROBABILITY
from unrecall.metrics.utility import RESTORATION, RETAIN_ACCURACY, RETAIN_LOSS, TEST_ACCURACY
from unrecall.metrics.worst_group import WORST_GROUP

METRICS: tuple[Metric, ...] = (
    RETAIN_ACCURACY,
    RETAIN_LOSS,
    TEST_ACCURACY,
    WORST_GROUP,
    RESTORATION,
    FORGET_ACCURACY,
    HOLDOUT_ACCURACY,
    DISAGREEMENT,
    COMPLETENESS,
    MEMBERS_LEFT,
    INTRA_CLASS_COSINE,
    CLASS_MARGIN,
    OVER_UNLEARNING,
    CONTAMINATION,
    FORGET_PROBABILITY,
    EXTRACTION_STRENGTH,
    RETAIN_PROBABILITY,
    ANSWERS,
    RETRIEVAL,
    RANKING,
    AVERAGE_GAP,
    COST,
)

__all__ = ["METRICS", "Measured", "Metric"]
