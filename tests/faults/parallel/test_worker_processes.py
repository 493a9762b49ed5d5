"""Whoever dies, nothing is left, no process and no shared memory; and a script without a guard starts no others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PATIENCE = 30.0

ALGORITHM = """
import os, sys, time
import numpy as np
import millstream.data as data
from millstream.parallel import Done, Processes, fit

class Descent:
    def __init__(self, pause, steps=100_000):
        self.pause, self.steps = pause, steps

    def init(self, meta, rng):
        return {"w": rng.standard_normal(meta.n_features), "step": 0}

    def local(self, params, part, ctx):
        time.sleep(self.pause)
        gradient = np.zeros(len(params["w"]))
        for block in part.blocks():
            gradient += block.X.T @ (block.X @ params["w"])
        return {"gradient": gradient, "large": np.full(50_000, part.index)}

    def update(self, state, statistic):
        state = {"w": state["w"] - 1e-6 * statistic["gradient"], "step": state["step"] + 1}
        return Done(state) if state["step"] == self.steps else state

def rows():
    return data.from_numpy(np.random.default_rng(0).random((8000, 50)), part_rows=1000)

def tell(report):
    print(report.step, flush=True)
"""
ENDLESS = "\nfit(Descent(float(sys.argv[1])), rows(), engine=Processes(3), monitor=tell)\n"
SHORT = "\nprint(fit(Descent(0.0, steps=5), rows(), engine=Processes(2)).params['w'].tobytes().hex())\n"


def script(folder: Path, text: str, *arguments: str, **options: object) -> subprocess.Popen[str]:
    path = folder / "script.py"
    path.write_text(text)
    return subprocess.Popen(
        [sys.executable, str(path), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def guarded(text: str) -> str:
    return ALGORITHM + "\nif __name__ == '__main__':" + text.replace("\n", "\n    ")


def descendants(pid: int) -> set[int]:
    """Every process below `pid`, in whatever session."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    below, todo = set(), [pid]
    while todo:
        for child in children.get(todo.pop(), ()):
            below.add(child)
            todo.append(child)
    return below


def alive(pids: set[int]) -> set[int]:
    def runs(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    return {pid for pid in pids if runs(pid)}


def wait_until_gone(pids: set[int]) -> None:
    until = time.monotonic() + PATIENCE
    while alive(pids) and time.monotonic() < until:
        time.sleep(0.02)
    assert not alive(pids)


def wait_for_step(process: subprocess.Popen[str], step: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= step:
            return
    raise AssertionError(f"ended before step {step}: {process.stderr.read() if process.stderr else ''}")


@pytest.mark.parametrize("pause", ["0.0", "60.0"], ids=["between short parts", "all workers in a long part"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=lambda end: end.name)
def test_no_process_and_no_shared_memory_is_left(end: signal.Signals, pause: str, tmp_path: Path) -> None:
    shared = set(os.listdir("/dev/shm"))
    process = script(tmp_path, guarded(ENDLESS), pause)
    if pause == "0.0":
        wait_for_step(process, 3)
    else:
        until = time.monotonic() + PATIENCE
        while len(descendants(process.pid)) < 4 and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.3)
    below = descendants(process.pid)
    assert len(below) == 4  # three workers and the process they were forked from
    process.send_signal(end)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == -end
    if end is signal.SIGINT:
        assert err.rstrip().endswith("KeyboardInterrupt")
        assert not alive(below - {min(below)})  # the workers were gone before the driver ended
    wait_until_gone(below)
    assert set(os.listdir("/dev/shm")) == shared


def test_a_stopped_worker_ends_with_the_driver_too(tmp_path: Path) -> None:
    process = script(tmp_path, guarded(ENDLESS), "0.0")
    wait_for_step(process, 3)
    below = descendants(process.pid)
    os.kill(max(below), signal.SIGSTOP)
    process.kill()
    process.communicate(timeout=PATIENCE)
    wait_until_gone(below)


def test_workers_killed_and_stopped_from_outside_change_no_bit(tmp_path: Path) -> None:
    run = """
from datetime import timedelta
result = fit(Descent(0.002, steps=30), rows(), engine=Processes(3, timedelta(seconds=1)), monitor=tell)
print(*result.report.lost, file=sys.stderr)
print(result.params['w'].tobytes().hex())
"""
    undisturbed, err = script(tmp_path, guarded(run)).communicate(timeout=60)
    assert undisturbed, err
    process = script(tmp_path, guarded(run))
    wait_for_step(process, 2)
    server, *workers = sorted(descendants(process.pid))
    os.kill(workers[1], signal.SIGKILL)
    wait_for_step(process, 9)
    os.kill(workers[2], signal.SIGSTOP)
    out, err = process.communicate(timeout=60)
    assert out.splitlines()[-1] == undisturbed.splitlines()[-1]
    assert err.split() == ["1", "2"]
    wait_until_gone({server, *workers})


def test_when_the_fork_server_is_killed_the_fit_says_so_and_the_next_has_another(tmp_path: Path) -> None:
    run = """
from millstream.errors import WorkerLost
try:
    fit(Descent(0.0), rows(), engine=Processes(2), monitor=tell)
except WorkerLost as error:
    print(error, file=sys.stderr)
print(fit(Descent(0.0, steps=5), rows(), engine=Processes(2)).done)
"""
    process = script(tmp_path, guarded(run))
    wait_for_step(process, 2)
    os.kill(min(descendants(process.pid)), signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert out.splitlines()[-1] == "True", err
    assert "all 2 worker processes died" in err


# The script itself


def test_of_a_script_workers_load_what_is_not_guarded(tmp_path: Path) -> None:
    out, err = script(tmp_path, guarded(SHORT)).communicate(timeout=60)
    assert len(out.strip()) == 50 * 16, err


def test_a_script_without_guard_is_refused_and_starts_no_others(tmp_path: Path) -> None:
    started = tmp_path / "started"
    text = ALGORITHM + f"\nopen({str(started)!r}, 'a').write('started\\n')\n" + SHORT
    process = script(tmp_path, text)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "if __name__ == '__main__':" in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("millstream.errors.Refused: ")
    assert 2 <= len(started.read_text().splitlines()) <= 3  # the script, and each worker at most once


def test_a_script_needs_no_guard_if_the_algorithm_is_in_a_module(tmp_path: Path) -> None:
    (tmp_path / "descent.py").write_text(ALGORITHM)
    text = "import sys\nfrom descent import *\nprint('once')" + SHORT
    out, err = script(tmp_path, text).communicate(timeout=60)
    assert out.splitlines()[0] == "once", err
    assert len(out.splitlines()) == 2


def test_a_class_of_an_interactive_session_is_refused() -> None:
    result = subprocess.run(
        [sys.executable, "-c", ALGORITHM + SHORT], capture_output=True, text=True, timeout=60
    )
    assert "Refused: Descent is defined in an interactive session" in result.stderr
    assert "write it into a file and import it" in result.stderr


# Want of memory


def test_a_full_dev_shm_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(guarded(SHORT))
    inside = (
        "mount -t tmpfs -o size=4k tmpfs /dev/shm && head -c 4096 /dev/zero > /dev/shm/full && exec {} {}"
    )
    command = ["unshare", "-m", "sh", "-c", inside.format(sys.executable, path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if result.returncode and ("unshare:" in result.stderr or "mount:" in result.stderr):
        pytest.skip(f"a /dev/shm of its own needs privileges: {result.stderr.strip()}")
    assert len(result.stdout.strip()) == 50 * 16, result.stderr


@pytest.mark.parametrize("where", ["driver", "worker"])
def test_want_of_shared_memory_is_an_error_that_says_so(where: str, tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    # The limit stands for memory that can't be had. Imposed at the top it holds in the workers, which load the script.
    text = ALGORITHM.replace("class Descent", (limit if where == "worker" else "") + "class Descent", 1)
    if where == "worker":
        text = text.replace(limit, "if __name__ == '__mp_main__': " + limit)
    text += "\nif __name__ == '__main__':" + (("\n" + limit if where == "driver" else "") + SHORT).replace(
        "\n", "\n    "
    )
    process = script(tmp_path, text)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "TrainingError: no shared memory for" in err
    assert "File too large" in err
    assert "use Threads()" in err
