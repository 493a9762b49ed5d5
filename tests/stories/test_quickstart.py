"""The whole way on real flights, run as a user runs it; and Ctrl-C at every step of it."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import millstream as ms
from millstream.log import broker_of

STEPS = ("collect", "features", "train", "register", "deploy", "report")
COMMAND = [sys.executable, "-c", "from millstream.cli.app import main; main()", "quickstart", "--output"]


def processes_with(text: str) -> list[int]:
    """Processes whose command line contains `text`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if text in (entry / "cmdline").read_text(errors="replace"):
                    found.append(int(entry.name))
            except OSError:
                continue  # it ended while we looked
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, dict, subprocess.CompletedProcess[str]]:
    home = tmp_path_factory.mktemp("story") / "quickstart"
    done = subprocess.run([*COMMAND, home], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return home, json.loads((home / "report.json").read_text()), done


@pytest.mark.timeout(240)
def test_every_event_is_accounted_for(finished):
    _, figures, _ = finished
    assert figures["failures"] == []
    assert figures["events_in"] == sum(figures["events_by_topic"].values()) == 1_018_758
    for run in ("events_history", "events_live"):
        for counts in figures[run].values():
            assert counts["in"] == counts["used"] + counts["late"] + counts["filtered"]
    assert figures["events_history"] == figures["events_live"]
    assert figures["feature_rows"] == figures["events_history"]["plans"]["used"]
    assert figures["late"] > 0


def test_the_streamed_features_are_worth_their_price(finished):
    _, figures, _ = finished
    assert figures["auc"] >= 0.715
    assert figures["auc"] - figures["auc_without_stream_features"] >= 0.025


def test_five_deployments_give_one_answer(finished):
    _, figures, _ = finished
    assert set(figures["parity"]) == {"batch", "database", "stream", "server", "edge"}
    for row in figures["parity"].values():
        assert row["rows"] == figures["events_out"] > 80_000
        assert row["label_flips"] == 0
        assert row["largest_absolute_difference"] <= 1e-6
    assert len(figures["parity_pairwise"]) == 10
    assert figures["same_bits"]
    assert figures["live_rows_equal_training_rows"]


def test_it_stays_within_its_limits_of_memory(finished):
    del finished
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert peak < 3e9


def test_the_page_stands_alone(finished):
    home, figures, _ = finished
    page = (home / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert "http://" not in page
    assert "https://" not in page
    assert f"{figures['auc']:.4f}" in page


def test_the_model_answers_after_the_run(finished):
    home, figures, _ = finished
    version = ms.Registry(home / "models").get("flight-delay@production")
    assert version.digest == figures["model"]["digest"]
    assert {name: sum(ends) for name, ends in version.lineage["topics"].items()} == figures["events_by_topic"]
    assert {report.target for report in ms.Registry(home / "models").parity("flight-delay")} >= set(
        figures["parity"]
    )


def test_nothing_is_left_running(finished):
    home, _, _ = finished
    assert broker_of(home / "events") is None
    assert processes_with(str(home)) == []


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.timeout(240)
def test_ctrl_c_leaves_no_process_and_no_lock(tmp_path, step):
    home = tmp_path / "quickstart"
    command = [*COMMAND, home, "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        for line in process.stderr:
            if line.strip() == step:
                break
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        code = process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()
    # The report takes less than a second: the signal may come when all is done.
    assert code == 130 or (step == "report" and code == 0), said
    assert "Traceback" not in said
    assert processes_with(str(home)) == []
    with ms.Log(home / "events") as log:  # the lock is free
        assert log.topics() is not None
