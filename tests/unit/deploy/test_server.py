import socket
import subprocess
import sys

import httpx
import pyarrow as pa
import pytest
from sklearn.base import clone

import millstream as ms
from millstream.deploy.server import app as server_app
from millstream.errors import AddressInUse, DeployError, InputError, SignatureError
from millstream.models import compare


@pytest.fixture(scope="module")
def server(version):
    with ms.ModelServer(version, max_bytes=200_000) as server:
        yield server


@pytest.fixture
def http(server):
    with httpx.Client(base_url=server.url) as http:
        yield http


def tensor(name, datatype, data, shape=None):
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": data}


def one_ride(**changed):
    columns = {
        "borough": tensor("borough", "BYTES", ["Queens"]),
        "fare": tensor("fare", "FP64", [12.5]),
        "hour": tensor("hour", "INT64", [17]),
    }
    return {"inputs": list((columns | changed).values())}


INFER = "/v2/models/long/infer"


def test_the_client_gets_the_answers(server, table, expected):
    with server.client() as client:
        assert compare(expected, client.predict(table)).holds


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v2", {"name": "millstream", "version": ms.__version__, "extensions": []}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"name": "long", "ready": True}),
        ("/v2/models/long/ready", {"name": "long", "ready": True}),
        ("/v2/models/long/versions/1/ready", {"name": "long", "ready": True}),
    ],
)
def test_health_and_readiness(http, path, found):
    assert http.get(path).json() == found


def test_metadata_tells_inputs_and_outputs(http):
    found = http.get("/v2/models/long/versions/1").json()
    assert found["inputs"] == [
        {"name": "borough", "datatype": "BYTES", "shape": [-1]},
        {"name": "fare", "datatype": "FP64", "shape": [-1]},
        {"name": "hour", "datatype": "INT64", "shape": [-1]},
    ]
    assert [output["name"] for output in found["outputs"]] == ["label", "probability"]


def test_an_infer_request(http, version):
    answer = http.post(INFER, json={"id": "a7", **one_ride()}).json()
    expected = version.scorer().predict({"borough": "Queens", "fare": 12.5, "hour": 17})
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("long", "1", "a7")
    assert answer["outputs"][0] == {
        "name": "label",
        "shape": [1],
        "datatype": "INT64",
        "data": expected["label"].to_pylist(),
    }
    assert answer["outputs"][1]["data"] == [expected["probability"][0].as_py()[1]]


def test_columns_may_have_shape_rows_by_one_and_missing_values(http):
    nested = one_ride(
        fare=tensor("fare", "FP64", [[None]], [1, 1]), borough=tensor("borough", "BYTES", [None])
    )
    flat = one_ride(fare=tensor("fare", "FP32", [None], [1, 1]), borough=tensor("borough", "BYTES", [""]))
    assert http.post(INFER, json=nested).json() == http.post(INFER, json=flat).json()


def test_only_the_outputs_asked_for(http):
    answer = http.post(INFER, json={**one_ride(), "outputs": [{"name": "probability"}]}).json()
    assert [output["name"] for output in answer["outputs"]] == ["probability"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"fare": tensor("fare", "FP64", ["a lot"])}, "column 'fare' is not FP64 throughout"),
        ({"fare": tensor("fare", "BYTES", ["a lot"])}, "column 'fare' is string: expected double"),
        ({"fare": tensor("fare", "FP8", [1.0])}, "column 'fare' has datatype 'FP8'"),
        ({"fare": tensor("fare", "FP64", [1.0], [2])}, "column 'fare' has 1 values; its shape [2] has 2"),
        ({"fare": tensor("fare", "FP64", [1.0], [-1])}, "column 'fare' has shape [-1]"),
        ({"fare": tensor("fare", "FP64", [[1.0], [2.0, 3.0]], [2, 1])}, "column 'fare' is ragged"),
        ({"fare": tensor("hour", "FP64", [1.0])}, "name a column twice"),
        ({"fare": tensor("tip", "FP64", [1.0])}, "column 'fare' is missing: expected double"),
        ({"hour": tensor("hour", "FP64", [17.5])}, "column 'hour' is double: expected int64"),
        ({"hour": tensor("hour", "INT64", [17, 18])}, "column 'hour' has 2 rows"),
        ({"hour": {"name": "hour"}}, "required field `shape` - at `$.inputs[2]`"),
    ],
)
def test_bad_input_is_400_and_named(http, change, text):
    answer = http.post(INFER, json=one_ride(**change))
    assert answer.status_code == 400
    assert text in answer.json()["error"]


def test_what_is_not_there_is_404(http):
    assert "this server has long@1" in http.post("/v2/models/short/infer", json=one_ride()).json()["error"]
    for path in ("/v2/models/long/versions/2/infer", "/v2/models/short/infer"):
        assert http.post(path, json=one_ride()).status_code == 404
    assert http.get("/v3").status_code == 404
    assert http.get(INFER).status_code == 405


def test_a_body_over_the_limit_is_413(http):
    def chunks():
        yield from [b"x" * 65_536] * 8

    assert http.post(INFER, content=b"x" * 200_001).status_code == 413
    assert http.post(INFER, content=chunks()).status_code == 413
    assert http.post(INFER, json=one_ride()).status_code == 200


def test_a_body_that_never_ends_is_408(server, monkeypatch):
    from datetime import timedelta

    monkeypatch.setattr(server_app, "BODY_DEADLINE", timedelta(seconds=0.2))
    port = int(server.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"POST /v2/models/long/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")


def test_requests_of_strangers_wait_for_the_golden_rows(version, monkeypatch):
    seen = []
    check = type(version).check

    def ask_meanwhile(self, target, predictions):
        seen.append(httpx.get(f"{server.url}/v2/health/ready").status_code)
        seen.append(httpx.post(f"{server.url}{INFER}", json=one_ride()).status_code)
        return check(self, target, predictions)

    monkeypatch.setattr(type(version), "check", ask_meanwhile)
    server = ms.ModelServer(version)
    with server:
        assert seen == [503, 503]
        assert httpx.post(f"{server.url}{INFER}", json=one_ride()).status_code == 200


def test_the_class_of_a_probability_can_be_read(version, registry, estimator, table):

    columns = table.select(["borough", "fare", "hour"])
    late = ["early", "late", "on time"] * 333 + ["late"]
    three = registry.register("three", clone(estimator).fit(columns, late), data=columns)
    with ms.ModelServer(three) as running, running.client() as client:
        outputs = client.metadata["outputs"]
    assert [(o["name"], o.get("parameters")) for o in outputs] == [
        ("label", None),
        ("probability_0", {"class": "early"}),
        ("probability_1", {"class": "late"}),
        ("probability_2", {"class": "on time"}),
    ]
    assert version.signature.class_of("probability") == 1


def test_the_client_sends_only_the_columns_of_the_model(server, table, expected):
    at = pa.array(range(1000)).cast(pa.timestamp("us", "UTC"))
    frame = table.to_pandas().set_index("id")
    with server.client() as client:
        assert compare(expected, client.predict(table.append_column("at", at))).holds
        assert compare(expected, client.predict(frame)).holds
        assert client.predict(table.slice(0, 0)).schema == client.predict(table.slice(0, 1)).schema


def test_the_client_names_what_is_no_table(server):
    with server.client() as client, pytest.raises(InputError, match="is a dict; expected a"):
        client.predict({"fare": [1.0]})


def test_readiness_is_told_when_it_listens_and_not_before(server, version):
    ready = []

    def told(url):
        ready.append(httpx.get(f"{url}/v2/health/ready").status_code)
        mine.stop()

    mine = ms.ModelServer(version)
    mine.serve(0, on_ready=told)
    assert ready == [200]
    with pytest.raises(AddressInUse):
        mine.serve(int(server.url.rsplit(":", 1)[1]), on_ready=told)
    assert ready == [200]


def test_it_listens_on_loopback_only(server):
    port = int(server.url.rsplit(":", 1)[1])
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", port))


def test_a_port_that_is_taken_is_named(server, version):
    port = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(AddressInUse, match=str(port)):
        ms.ModelServer(version).start(port)


def test_it_can_be_started_again_and_stopped_twice(version, table):
    server = ms.ModelServer(version)
    for _ in range(2):
        server.start()
        url = server.url
        server.stop()
        server.stop()
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)
    with pytest.raises(DeployError, match="not being served"):
        _ = server.url


def test_a_category_the_model_was_told_to_refuse_is_named_everywhere(registry, tmp_path):
    from millstream import learn

    places = pa.table({"borough": ["Queens", "Bronx"] * 5})
    strict = registry.register("strict", learn.OneHotEncoder().fit(places), data=places)
    elsewhere = pa.table({"borough": ["Hoboken"]})
    with pytest.raises(
        SignatureError, match=r"column 'borough' holds 'Hoboken': expected one of \['Bronx', 'Queens'\]"
    ):
        strict.scorer().predict(elsewhere)
    with (
        ms.ModelServer(strict) as server,
        server.client() as client,
        pytest.raises(DeployError, match=r"400.*Hoboken"),
    ):
        client.predict(elsewhere)
    edge = ms.EdgeBundle(strict).write(tmp_path / "edge").path
    program = [sys.executable, "-I", str(edge / "predict.py")]
    ended = subprocess.run(
        program, input=b'{"borough": "Hoboken"}', capture_output=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert ended.stderr.startswith(b"predict.py: the model refuses these rows")


def test_the_client_tells_what_the_server_refused(server):
    with server.client() as client, pytest.raises(DeployError, match=r"400.*column 'fare'"):
        client.predict(pa.table({"borough": ["Queens"], "hour": [3]}))
    with server.client() as client, pytest.raises(DeployError, match=r"400.*column 'borough' is missing"):
        client.predict(pa.table({"other": ["Queens"]}))
