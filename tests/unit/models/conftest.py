"""A logistic regression over raw columns, its graph written by hand: the models room without an estimator."""

import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import TensorProto, helper, numpy_helper

from millstream.clock import ManualClock
from millstream.models import Bundle, Golden, Registry, Signature
from millstream.models.outputs import to_batch

CARRIERS = ["AA", "DL", "UA"]
WEIGHTS = np.array([0.8, -0.3, 0.5, -0.4, 0.1])
MEAN, SCALE, BIAS = np.array([10.0, 900.0]), np.array([20.0, 400.0]), -0.25


def graph() -> onnx.ModelProto:
    """delay (double, null imputed by 10), distance (int64), carrier (string) -> label, probability."""
    node = helper.make_node
    constants = {
        "imputed": np.array(10.0),
        "column": np.array([1]),
        "mean": MEAN,
        "scale": SCALE,
        "weights": WEIGHTS.reshape(-1, 1),
        "bias": np.array([BIAS]),
        "one": np.array([1.0]),
        "half": np.array(0.5),
    }
    nodes = [
        node("IsNaN", ["delay"], ["missing"]),
        node("Where", ["missing", "imputed", "delay"], ["delay_known"]),
        node("Cast", ["distance"], ["distance_double"], to=TensorProto.DOUBLE),
        node("Unsqueeze", ["delay_known", "column"], ["delay_column"]),
        node("Unsqueeze", ["distance_double", "column"], ["distance_column"]),
        node("Concat", ["delay_column", "distance_column"], ["numbers"], axis=1),
        node("Sub", ["numbers", "mean"], ["centred"]),
        node("Div", ["centred", "scale"], ["scaled"]),
        node(
            "OneHotEncoder", ["carrier"], ["hot_float"], domain="ai.onnx.ml", cats_strings=CARRIERS, zeros=1
        ),
        node("Cast", ["hot_float"], ["hot"], to=TensorProto.DOUBLE),
        node("Concat", ["scaled", "hot"], ["features"], axis=1),
        node("MatMul", ["features", "weights"], ["product"]),
        node("Add", ["product", "bias"], ["z"]),
        node("Sigmoid", ["z"], ["late"]),
        node("Sub", ["one", "late"], ["on_time"]),
        node("Concat", ["on_time", "late"], ["probability"], axis=1),
        node("ArgMax", ["probability"], ["label"], axis=1, keepdims=0),
    ]
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        "late",
        [
            value("delay", TensorProto.DOUBLE, ["rows"]),
            value("distance", TensorProto.INT64, ["rows"]),
            value("carrier", TensorProto.STRING, ["rows"]),
        ],
        [
            value("label", TensorProto.INT64, ["rows"]),
            value("probability", TensorProto.DOUBLE, ["rows", 2]),
        ],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9)


def by_hand(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The same answers in NumPy, independent of ONNX."""
    delay = np.array([10.0 if v is None else v for v in rows.column("delay").to_pylist()])
    distance = np.array(rows.column("distance").to_pylist(), dtype=float)
    hot = np.array(
        [[carrier == known for known in CARRIERS] for carrier in rows.column("carrier").to_pylist()]
    )
    scaled = (np.stack([delay, distance], axis=1) - MEAN) / SCALE
    late = 1 / (1 + np.exp(-(np.hstack([scaled, hot]) @ WEIGHTS + BIAS)))
    return to_batch({"label": (late > 0.5).astype(int), "probability": np.stack([1 - late, late], axis=1)})


@pytest.fixture
def rows() -> pa.RecordBatch:
    rng = np.random.default_rng(3)
    delay = [None if v < -20 else float(v) for v in rng.normal(5, 20, 50)]
    carrier = [None if i == 7 else ["AA", "DL", "UA", "ZZ"][i % 4] for i in range(50)]
    distance = pa.array(rng.integers(100, 3000, 50), pa.int32())
    return pa.record_batch({"delay": pa.array(delay), "distance": distance, "carrier": carrier})


@pytest.fixture
def answers(rows):
    return by_hand(rows)


@pytest.fixture
def clock():
    return ManualClock(start=1_700_000_000_000_000)


@pytest.fixture
def registry(tmp_path, clock):
    return Registry(tmp_path / "models", clock=clock)


@pytest.fixture
def write(registry, rows, answers):
    """Writes a bundle into the registry's folder; `outputs` and `note` make another one."""

    def write(outputs=answers, note="", **lineage):
        model = graph()
        return Bundle.write(
            registry.path / "bundles",
            model=model.SerializeToString(),
            signature=Signature.of(model, answers, np.array([0, 1])),
            golden=Golden(rows, outputs),
            reference={},
            lineage={"note": note, **lineage},
        )

    return write


@pytest.fixture
def bundle(write):
    return write()
