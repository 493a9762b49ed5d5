"""What flows: datasets of rows with roles, in parts, larger than memory.

::

    source ──> Dataset ── select, with_roles, map_batches, filter (lazy) ──> Dataset
                  │
                  ├── parts ── blocks: X, y, weight        what training reads
                  ├── persist                              the row-major copy, memory-mapped
                  └── write_parquet                        there when complete

The number of parts, their boundaries and the blocks within them depend on the data alone.
"""

from millstream.data.block import Block
from millstream.data.dataset import Dataset
from millstream.data.durable import durable_file, durable_folder
from millstream.data.memory import from_arrow, from_numpy
from millstream.data.parquet import read_parquet
from millstream.data.part import Part, ReadColumns
from millstream.data.persist import MappedFile
from millstream.data.schema import Field, Role, Schema
from millstream.data.table import as_table

__all__ = [
    "Block",
    "Dataset",
    "Field",
    "MappedFile",
    "Part",
    "ReadColumns",
    "Role",
    "Schema",
    "as_table",
    "durable_file",
    "durable_folder",
    "from_arrow",
    "from_numpy",
    "read_parquet",
]
