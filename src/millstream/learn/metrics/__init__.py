"""How good predictions are, as small states that merge: over parts, over windows, over machines.

Every metric is updated with rows, merged with another of its kind, and read::

    metric.update(y, prediction, weight=None); metric.merge(other); metric.result

``merge`` is associative and, but for the last bit of float sums, commutative: any split of the rows into parts gives
the figure of the whole. Figures agree with scikit-learn's functions of the same names.
"""

from millstream.learn.metrics.confusion import Accuracy, Precision, Recall
from millstream.learn.metrics.log_loss import LogLoss
from millstream.learn.metrics.metric import Metric
from millstream.learn.metrics.roc_auc import RocAuc

__all__ = ["Accuracy", "LogLoss", "Metric", "Precision", "Recall", "RocAuc"]
