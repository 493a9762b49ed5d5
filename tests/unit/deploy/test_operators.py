"""Every operator that has a form in SQL gives, in SQLite, what ONNX Runtime gives."""

import sqlite3

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pytest
import sqlalchemy as sa
from onnx import TensorProto, helper, numpy_helper
from sqlalchemy.dialects import sqlite as sqlite_dialect

from millstream.deploy.database.expression import compile_graph
from millstream.deploy.database.operators import OPERATORS
from millstream.errors import Refused
from millstream.models import Signature, compare, flat
from millstream.models.outputs import to_batch

DOUBLE, INT64, STRING, BOOL = TensorProto.DOUBLE, TensorProto.INT64, TensorProto.STRING, TensorProto.BOOL
ML = "ai.onnx.ml"
WEIGHTS = np.array([[0.5, -2.0], [1e-3, 3.0], [-1.0, 0.25]])


def node(kind, inputs, output, domain="", **attributes):
    return helper.make_node(kind, inputs, [output], domain=domain, **attributes)


def of_matrix(*nodes, width=None, **constants):
    """A model of X, three doubles a row; `width` of the output Y, None for a scalar."""
    return [("X", DOUBLE, 3)], nodes, width, constants


def of_text(*nodes, width=None, **constants):
    return [("T", STRING, None)], nodes, width, constants


def comparison(kind):
    """An operator with a boolean output, seen through Where."""
    nodes = node(kind, ["X", "b"], "is"), node("Where", ["is", "yes", "no"], "Y")
    return of_matrix(*nodes, width=3, b=np.array([0.5, -0.5, 0.0]), yes=np.array(1.0), no=np.array(-1.0))


def logic(kind):
    """Two conditions, one of them about a missing value."""
    first = node("Greater", ["X", "b"], "a"), node("IsNaN", ["X"], "c")
    both = node(kind, ["a"] if kind == "Not" else ["a", "c"], "is")
    constants = {"b": np.array(0.0), "yes": np.array(1.0), "no": np.array(-1.0)}
    return of_matrix(*first, both, node("Where", ["is", "yes", "no"], "Y"), width=3, **constants)


def arithmetic(kind):
    return of_matrix(node(kind, ["X", "b"], "Y"), width=3, b=np.array([0.5, -2.0, 1e6]))


def alone(kind):
    return of_matrix(
        node("IsNaN", ["X"], "m"),
        node("Where", ["m", "b", "X"], "x"),
        node(kind, ["x"], "Y"),
        width=3,
        b=np.array(0.5),
    )


def decision(kind, **attributes):
    constants = {"b": np.array(0.0)}
    known = node("IsNaN", ["X"], "m"), node("Where", ["m", "b", "X"], "x")
    return of_matrix(*known, node(kind, ["x"], "Y", axis=1, keepdims=0, **attributes), **constants)


MODELS = {
    **{kind: arithmetic(kind) for kind in ("Add", "Sub", "Mul", "Div")},
    **{kind: comparison(kind) for kind in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")},
    **{kind: logic(kind) for kind in ("And", "Or", "Not")},
    **{kind: alone(kind) for kind in ("Neg", "Abs", "Exp", "Sigmoid", "Identity")},
    **{kind: decision(kind) for kind in ("ArgMax", "ArgMin")},
    "Sqrt": of_matrix(node("Abs", ["X"], "a"), node("Sqrt", ["a"], "Y"), width=3),
    "IsNaN": of_matrix(node("IsNaN", ["X"], "m"), node("Cast", ["m"], "Y", to=DOUBLE), width=3),
    "Where": of_matrix(
        node("IsNaN", ["X"], "m"), node("Where", ["m", "b", "X"], "Y"), width=3, b=np.array([1.0, 2.0, 3.0])
    ),
    "Cast": of_matrix(node("Greater", ["X", "b"], "m"), node("Cast", ["m"], "Y", to=INT64), width=3, b=np.array(0.0)),
    "MatMul": of_matrix(node("MatMul", ["X", "w"], "Y"), width=2, w=WEIGHTS),
    "Gemm": of_matrix(
        node("Gemm", ["X", "w", "b"], "Y", transB=1), width=2, w=WEIGHTS.T.copy(), b=np.array([1.0, -1.0])
    ),
    "ReduceSum": of_matrix(node("ReduceSum", ["X", "one"], "Y", keepdims=0), one=np.array([1])),
    "Softmax": of_matrix(
        node("Mul", ["X", "b"], "x"), node("Softmax", ["x"], "Y", axis=1), width=3, b=np.array(300.0)
    ),
    "Concat": of_matrix(node("Concat", ["X", "X"], "Y", axis=1), width=6),
    "Gather": of_matrix(node("Gather", ["X", "i"], "Y", axis=1), width=2, i=np.array([2, 0])),
    "Reshape": of_matrix(
        node("Gather", ["X", "i"], "x", axis=1), node("Reshape", ["x", "s"], "Y"), i=np.array([1]), s=np.array([-1])
    ),
    "Unsqueeze": of_matrix(
        node("Gather", ["X", "i"], "x", axis=1), node("Unsqueeze", ["x", "one"], "Y"),
        width=1, i=np.array(1), one=np.array([1]),
    ),
    "Squeeze": of_matrix(
        node("Gather", ["X", "i"], "x", axis=1), node("Squeeze", ["x", "one"], "Y"),
        i=np.array([1]), one=np.array([1]),
    ),
    "Constant": of_matrix(
        node("Constant", [], "c", value=numpy_helper.from_array(np.array([1.5]))), node("Add", ["X", "c"], "Y"), width=3
    ),
    "OneHotEncoder": of_text(
        node("OneHotEncoder", ["T"], "h", ML, cats_strings=["a", "it's", ""], zeros=1),
        node("Cast", ["h"], "x", to=DOUBLE), node("MatMul", ["x", "w"], "Y"), width=2, w=WEIGHTS,
    ),
    "LabelEncoder": of_text(
        node("LabelEncoder", ["T"], "Y", ML, keys_strings=["a", "it's"], values_int64s=[7, 8], default_int64=-1)
    ),
}  # fmt: skip


def build(inputs, nodes, width, constants):
    elements = {"ArgMax": INT64, "ArgMin": INT64, "LabelEncoder": INT64}
    cast = [a.i for a in nodes[-1].attribute if a.name == "to"]
    element = cast[0] if cast else elements.get(nodes[-1].op_type, DOUBLE)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes),
        "one",
        [value(name, kind, ["N"] if k is None else ["N", k]) for name, kind, k in inputs],
        [value("Y", element, ["N"] if width is None else ["N", width])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 19), helper.make_opsetid(ML, 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    return model


def rows_for(inputs):
    if inputs[0][0] == "T":
        texts = ["a", "b", "it's", "", "A"]
        return {"T": np.array(texts, dtype=object)}, [(t or None,) for t in texts]
    X = np.random.default_rng(0).normal(0, 1, (40, 3))
    X[0], X[1], X[2], X[3] = (0.5, -0.5, 0.0), (np.nan, 1.0, -2.0), (3.0, 3.0, 3.0), (-700.0, 700.0, np.nan)
    return {"X": X}, X.tolist()


def in_sqlite(model, signature, rows):
    query = sa.select(
        *(value.label(name) for name, value in compile_graph(model, signature, sa.column).items())
    )
    text = str(
        query.select_from(sa.table("t")).compile(
            dialect=sqlite_dialect.dialect(), compile_kwargs={"literal_binds": True}
        )
    )
    connection = sqlite3.connect(":memory:")
    connection.execute(f"CREATE TABLE t ({', '.join(signature.flat_columns)})")
    connection.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(rows[0]))})", rows)  # noqa: S608
    found = connection.execute(text)
    names = [column[0] for column in found.description]
    table = pa.table(dict(zip(names, map(list, zip(*found, strict=True)), strict=True)))
    connection.close()
    return table


def test_every_operator_is_tested_here():
    assert MODELS.keys() == OPERATORS.keys()


@pytest.mark.parametrize("kind", MODELS)
def test_sqlite_computes_what_onnx_runtime_computes(kind):
    model = build(*MODELS[kind])
    tensors, rows = rows_for(MODELS[kind][0])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = to_batch({"Y": session.run(["Y"], tensors)[0]})
    parity = compare(flat(expected), in_sqlite(model, Signature.of(model, expected), rows))
    assert parity.holds
    assert parity.rows == len(rows)


def test_a_graph_that_has_no_form_names_all_its_operators():
    model = build(
        *of_matrix(node("Erf", ["X"], "e"), node("Tanh", ["e"], "t"), node("Neg", ["t"], "Y"), width=3)
    )
    signature = Signature.of(model, to_batch({"Y": np.zeros((1, 3))}))
    with pytest.raises(Refused, match=r"\['Erf', 'Tanh'\]"):
        compile_graph(model, signature, sa.column)


@pytest.mark.parametrize(
    "spec",
    [
        of_matrix(node("ReduceSum", ["X", "rows"], "Y"), width=3, rows=np.array([0])),
        of_matrix(node("Concat", ["X", "X"], "Y", axis=0), width=3),
        of_text(node("OneHotEncoder", ["T"], "Y", ML, cats_strings=["a"], zeros=0), width=1),
    ],
)
def test_what_one_row_can_not_say_is_refused(spec):
    model = build(*spec)
    width = spec[2]
    with pytest.raises(Refused, match=r"SQL"):
        compile_graph(model, Signature.of(model, to_batch({"Y": np.zeros((1, width))})), sa.column)


def test_a_thousand_terms_stay_under_the_depth_sqlite_allows():
    weights = np.ones((3000, 1))
    _, nodes, width, constants = of_matrix(node("MatMul", ["X", "w"], "Y"), width=1, w=weights)
    model = build([("X", DOUBLE, 3000)], nodes, width, constants)
    signature = Signature.of(model, to_batch({"Y": np.zeros((1, 1))}))
    query = sa.select(compile_graph(model, signature, lambda name: sa.literal(1.0, sa.Double))["Y_0"])
    with sqlite3.connect(":memory:") as connection:
        text = str(query.compile(compile_kwargs={"literal_binds": True}))
        assert connection.execute(text).fetchone() == (3000.0,)
    connection.close()
