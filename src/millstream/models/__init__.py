"""Which version: bundles on disk, the Scorer that answers from them, the registry that lists them.

::

    estimator + data ──register──> bundle (model.onnx, signature, golden rows, ...) ──> version
                                     │                                                   │
                                     └── Scorer: rows -> predictions      alias: zones@production

A version is registered only if its Scorer answers the golden rows as the estimator itself does.
"""

from millstream.models.bundle import Bundle, Golden
from millstream.models.feeds import Rows
from millstream.models.followed import Followed
from millstream.models.outputs import flat, flat_schema
from millstream.models.parity import RELATIVE_BOUND, TIE_BAND, Parity, compare
from millstream.models.registry import AliasChange, Deployment, ParityReport, Registry
from millstream.models.scorer import Scorer
from millstream.models.signature import Input, Output, Signature
from millstream.models.version import Version

__all__ = [
    "RELATIVE_BOUND",
    "TIE_BAND",
    "AliasChange",
    "Bundle",
    "Deployment",
    "Followed",
    "Golden",
    "Input",
    "Output",
    "Parity",
    "ParityReport",
    "Registry",
    "Rows",
    "Scorer",
    "Signature",
    "Version",
    "compare",
    "flat",
    "flat_schema",
]
