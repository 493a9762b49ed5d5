"""Run the benchmarks and print what they measured, with the machine they ran on."""

import importlib
import os
import platform
import sys
from pathlib import Path


def main() -> None:
    names = sys.argv[1:] or sorted(
        file.stem
        for file in Path(__file__).parent.glob("*.py")
        if not file.stem.startswith("_") and file.stem != "pairs"
    )
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}", flush=True)
    for name in names:
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"\n{name}: {(module.__doc__ or '').splitlines()[0]}", flush=True)
        for line in module.measure():
            print(f"  {line}", flush=True)


if __name__ == "__main__":
    main()
