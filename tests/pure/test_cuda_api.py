"""What src/cuda/api.h says of the CUDA driver is what NVIDIA's header says, where there is one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).with_name("cuda_api.cc")


def toolkit() -> Path | None:
    """The folder of cuda.h."""
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    places = [Path(home) / "include" for home in homes if home]
    if nvcc := shutil.which("nvcc"):
        places.append(Path(nvcc).resolve().parents[1] / "include")
    places += sorted(Path("/usr/local").glob("cuda*/include"), reverse=True)
    places += sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/*/include"), reverse=True)
    return next((place for place in places if (place / "cuda.h").exists()), None)


def found_functions() -> list[tuple[str, str]]:
    """(field of Api, the driver's name)."""
    source = (ROOT / "src/cuda/driver.cc").read_text()
    found = re.findall(r'find(?:\.optional)?\("(\w+)",\s*api->(\w+)\)', source)
    return [(field, name) for name, field in found]


def compiles(tmp_path: Path, functions: list[tuple[str, str]]) -> str:
    """What the compiler has against it; "" for nothing."""
    include = toolkit()
    if include is None:
        pytest.skip("there is no cuda.h: the CUDA toolkit is not installed")
    lines = [
        # cuda.h gives these by macros whose names have no version.
        f"FUNCTION({field}, {re.sub(r'_v2$', '', name)});"
        for field, name in functions
    ]
    (tmp_path / "functions.inc").write_text("\n".join(lines))
    command = ["g++", "-std=c++20", "-fsyntax-only", f"-I{ROOT / 'src'}", f"-I{tmp_path}"]
    ended = subprocess.run(
        [*command, "-isystem", str(include), str(SOURCE)], capture_output=True, text=True
    )
    return ended.stderr


def test_every_function_is_looked_for():
    declared = re.findall(r"Status \(\*(\w+)\)\(", (ROOT / "src/cuda/api.h").read_text())

    assert len(declared) > 50
    assert sorted(declared) == sorted(field for field, _ in found_functions())


def test_every_constant_is_compared():
    declared = re.findall(r"inline constexpr \w+ (k\w+) =", (ROOT / "src/cuda/api.h").read_text())

    assert sorted(declared) == sorted(re.findall(r"^CONSTANT\((k\w+),", SOURCE.read_text(), re.M))


def test_functions_and_constants_are_those_of_the_toolkit(tmp_path: Path):
    assert compiles(tmp_path, found_functions()) == ""


def test_a_function_that_differs_is_found(tmp_path: Path):
    assert "cuMemFree" in compiles(tmp_path, [("mem_alloc", "cuMemFree_v2")])
