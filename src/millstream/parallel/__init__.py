"""How parts meet: one contract for every algorithm, on any engine.

`fit` runs an `Algorithm` (`init`, `local`, `update`) over the parts of a dataset. An `Engine` says where:
`Inline` plays workers on one thread, `Threads`, `Processes` and `MPI` have them. Statistics meet in a pairwise tree
over part indices, so the fitted parameters have the same bits whoever computed what.
"""

from millstream.parallel.algorithm import Algorithm, Context, Done, Meta, Step
from millstream.parallel.blas import one_blas_thread
from millstream.parallel.by_key import combine_by_key, join, regroup
from millstream.parallel.check import LawBroken, Violation, check_algorithm
from millstream.parallel.checkpoint import Checkpoint
from millstream.parallel.engine import Crew, Engine, Work
from millstream.parallel.fault import Fault
from millstream.parallel.fit import Fit, fit
from millstream.parallel.inline import Inline
from millstream.parallel.keyed_rows import Keyed
from millstream.parallel.limits import Limits, measure_limits
from millstream.parallel.materialize import materialize
from millstream.parallel.minloc import MINLOC, NOWHERE, located
from millstream.parallel.moments import MOMENTS, moments
from millstream.parallel.mpi import MPI
from millstream.parallel.operation import CONCAT, MAX, MIN, SUM, Op
from millstream.parallel.parameter_client import ParameterClient
from millstream.parallel.parameter_server import ParameterServer
from millstream.parallel.processes import Processes
from millstream.parallel.qr import QR, r_factor
from millstream.parallel.ray import Ray
from millstream.parallel.report import Report, StepReport
from millstream.parallel.shard import Shard, Sparse
from millstream.parallel.shuffle import Shuffled, ShuffleReport
from millstream.parallel.sparse_sum import SPARSE_SUM, sparse
from millstream.parallel.sync import Async, Bulk, Stale
from millstream.parallel.threads import Threads
from millstream.parallel.topk import TOPK, largest
from millstream.parallel.traffic import Traffic
from millstream.parallel.tree import PairwiseTree, Reduction

__all__ = [
    "CONCAT",
    "MAX",
    "MIN",
    "MINLOC",
    "MOMENTS",
    "MPI",
    "NOWHERE",
    "QR",
    "SPARSE_SUM",
    "SUM",
    "TOPK",
    "Algorithm",
    "Async",
    "Bulk",
    "Checkpoint",
    "Context",
    "Crew",
    "Done",
    "Engine",
    "Fault",
    "Fit",
    "Inline",
    "Keyed",
    "LawBroken",
    "Limits",
    "Meta",
    "Op",
    "PairwiseTree",
    "ParameterClient",
    "ParameterServer",
    "Processes",
    "Ray",
    "Reduction",
    "Report",
    "Shard",
    "ShuffleReport",
    "Shuffled",
    "Sparse",
    "Stale",
    "Step",
    "StepReport",
    "Threads",
    "Traffic",
    "Violation",
    "Work",
    "check_algorithm",
    "combine_by_key",
    "fit",
    "join",
    "largest",
    "located",
    "materialize",
    "measure_limits",
    "moments",
    "one_blas_thread",
    "r_factor",
    "regroup",
    "sparse",
]
