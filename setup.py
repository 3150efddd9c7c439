"""Builds the one extension, ``rdma_kv._core``. Every compiler flag is here.

Environment:
    RDMA_KV_SANITIZE  ``address,undefined`` or ``thread``: build with these sanitizers.
    MAX_JOBS          Compilers to run at once; default 2, as one can need a GiB of memory.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
GENERATED = ROOT / "build" / "generated"
KNOWN_SANITIZERS = {"address", "undefined", "thread"}
# Beyond -fsanitize=undefined. Without `null`, which the address sanitizer reports as well, and
# `vptr`: the two double the time of a build, and there is no cast for `vptr` to doubt.
UNDEFINED = ["-fsanitize=float-cast-overflow", "-fno-sanitize=null,vptr"]
# Templates of pybind11 are most of what the bindings compile to: this check of every reference
# takes the compiler longer there than all else.
UNDEFINED_IN_BINDINGS = ["-fno-sanitize=alignment"]

NO_VERBS = """
******************************************************************************
WARNING: <infiniband/verbs.h> was not found: building WITHOUT the rdma transport.
         The other transports work. To have rdma, install the headers and build
         again:  apt-get install libibverbs-dev
******************************************************************************
"""


def relative(pattern: str) -> list[str]:
    """Files below src/, relative to this one (setuptools wants that) and in a stable order."""
    return sorted(str(p.relative_to(ROOT)) for p in (ROOT / "src").rglob(pattern))


def sanitizers() -> list[str]:
    names = [n.strip() for n in os.environ.get("RDMA_KV_SANITIZE", "").split(",") if n.strip()]
    unknown = sorted(set(names) - KNOWN_SANITIZERS)
    if unknown:
        sys.exit(
            f"RDMA_KV_SANITIZE={','.join(names)}: unknown {', '.join(unknown)}; "
            f"allowed: {', '.join(sorted(KNOWN_SANITIZERS))}"
        )
    if "thread" in names and "address" in names:
        sys.exit("RDMA_KV_SANITIZE: `thread` and `address` exclude each other")
    return names


def has_verbs_header(compiler: list[str]) -> bool:
    """Whether a file that includes the verbs header compiles. Nothing is linked, here or later."""
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.cc"
        probe.write_text("#include <infiniband/verbs.h>\nint probe() { return IBV_QPT_RC; }\n")
        command = [*compiler, "-std=c++20", "-fsyntax-only", str(probe)]
        return subprocess.run(command, capture_output=True).returncode == 0


# Architectures that a build with nvcc brings the copy kernel for; others compile it at run time.
KERNEL_TARGETS = ("80", "90", "100")


def kernel_source() -> str:
    """The copy kernel as one text: what is told to it, then what it does."""
    parts = [(ROOT / "src/cuda" / name).read_text() for name in ("copy_job.h", "copy_kernel.cu")]
    return "".join(parts).replace("#pragma once\n", "")


def kernel_image(source: str) -> bytes:
    """The copy kernel compiled, where nvcc is; else nothing."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return b""
    with tempfile.TemporaryDirectory() as folder:
        kernel, image = Path(folder) / "copy_kernel.cu", Path(folder) / "copy_kernel.fatbin"
        kernel.write_text(source)
        targets = [f"-gencode=arch=compute_{t},code=sm_{t}" for t in KERNEL_TARGETS]
        command = [nvcc, "-fatbin", "-O3", "-std=c++17", *targets, "-o", str(image), str(kernel)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            print(f"nvcc failed; the kernel will be compiled at run time:\n{done.stderr}")
            return b""
        return image.read_bytes()


def write_kernel_header(folder: Path) -> None:
    """Puts the kernel where the core includes it from; leaves the file alone when nothing changed.

    Both as numbers: a string literal of C++ has a length that compilers may limit.
    """
    source = kernel_source()
    stamp = hashlib.sha256(f"{source}{shutil.which('nvcc')}".encode()).hexdigest()
    header = folder / "cuda" / "copy_kernel_image.h"
    first = f"// Made by setup.py from src/cuda/copy_kernel.cu ({stamp}).\n"
    if header.is_file() and header.read_text().startswith(first):
        return
    image = kernel_image(source)

    def numbers(data: bytes) -> str:
        return ",".join(map(str, data))

    header.parent.mkdir(parents=True, exist_ok=True)
    header.write_text(
        f"{first}#pragma once\n#include <cstddef>\nnamespace rdma_kv::cuda {{\n"
        f"inline constexpr char kCopyKernelSource[] = {{{numbers(source.encode())},0}};\n"
        f"inline constexpr std::size_t kCopyKernelImageBytes = {len(image)};\n"
        "alignas(16) inline constexpr unsigned char kCopyKernelImage[] = "
        f"{{{numbers(image) or '0'}}};\n}}\n"
    )


def needs_verbs_header(source: str) -> bool:
    return source.startswith(("src/verbs/", "src/transport/rdma/"))


class BuildExt(build_ext):
    """The usual build_ext, with ccache, the verbs probe, and objects that survive the build."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # setuptools builds an editable install in a folder that it then throws away. Ours stays,
        # one per set of sanitizers, so that a second build compiles only what has changed.
        flavour = "-".join(sorted(sanitizers())) or "plain"
        self.build_temp = str(ROOT / "build" / f"{sys.implementation.cache_tag}-{flavour}")
        write_kernel_header(GENERATED)

    def build_extensions(self) -> None:
        compile_command = getattr(self.compiler, "compiler_so_cxx", None)
        compile_command = list(compile_command or self.compiler.compiler_so)
        if has_verbs_header(compile_command):
            for extension in self.extensions:
                extension.define_macros.append(("RDMA_KV_HAVE_VERBS", "1"))
        else:
            print(NO_VERBS, file=sys.stderr, flush=True)
            for extension in self.extensions:
                extension.sources = [s for s in extension.sources if not needs_verbs_header(s)]

        if "undefined" in sanitizers():
            self.spare_the_bindings()
        self.rebuild_all_when_flags_changed(compile_command)
        ccache = shutil.which("ccache")
        if ccache and "ccache" not in Path(compile_command[0]).name:
            for name in ("compiler_so", "compiler_so_cxx"):
                if hasattr(self.compiler, name):
                    setattr(self.compiler, name, [ccache, *getattr(self.compiler, name)])
        super().build_extensions()

    def spare_the_bindings(self) -> None:
        compile_one = self.compiler._compile

        def compile_with_flags(obj, source, ext, cc_args, extra_postargs, pp_opts):  # type: ignore
            more = UNDEFINED_IN_BINDINGS if source.startswith("src/bindings/") else []
            compile_one(obj, source, ext, cc_args, [*extra_postargs, *more], pp_opts)

        self.compiler._compile = compile_with_flags

    def rebuild_all_when_flags_changed(self, compile_command: list[str]) -> None:
        """Removes the objects that other flags made: their times alone would call them fresh."""
        parts = [*compile_command, *os.environ.get("CXXFLAGS", "").split()]
        for extension in self.extensions:
            parts += [*map(str, extension.define_macros), *extension.extra_compile_args]
            parts += [*extension.include_dirs, *extension.extra_link_args]
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        folder = Path(self.build_temp)
        stamp = folder / "flags.sha256"
        if not stamp.is_file() or stamp.read_text() != digest:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            stamp.write_text(digest)
        # Even with fresh objects the linker must run: the other flavour's library may be in place.
        self.force = True


def core_extension() -> Pybind11Extension:
    compile_args = ["-O2", "-Wall", "-Wextra", "-fvisibility=hidden", "-pthread"]
    link_args = ["-pthread", "-ldl"]  # libibverbs, libcuda and libnvrtc are opened at run time
    if names := sanitizers():
        flags = [f"-fsanitize={name}" for name in names]
        # -g1: files and lines, and no types, which nobody looks at and which take time to write.
        compile_args += [*flags, "-O1", "-g1", "-fno-omit-frame-pointer", "-UNDEBUG"]
        compile_args.append("-Wno-maybe-uninitialized")  # a false alarm in what they insert
        compile_args.append("-D_GLIBCXX_ASSERTIONS")  # indices and iterators of the library
        if "address" in names:
            compile_args.append("-D_GLIBCXX_SANITIZE_VECTOR")  # between size and capacity, too
        if "undefined" in names:
            compile_args += [*UNDEFINED, "-fno-sanitize-recover=all"]
            # Else its runtime takes that of the address sanitizer for itself, which is loaded
            # first, and does not find the file that it shall report to.
            link_args += ["-static-libubsan", "-Wl,-Bsymbolic-functions"]
        link_args += flags
    return Pybind11Extension(
        "rdma_kv._core",
        relative("*.cc"),
        depends=[*relative("*.h"), "setup.py"],
        include_dirs=["src", str(GENERATED.relative_to(ROOT))],
        cxx_std=20,
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )


def needs_recompile(object_file: str, source: str) -> bool:
    """Whether a source or any header is newer: which header it includes is not tracked."""
    if not Path(object_file).is_file():
        return True
    headers = [*(ROOT / header for header in relative("*.h")), *GENERATED.rglob("*.h")]
    inputs = [ROOT / source, *headers, ROOT / "setup.py"]
    return Path(object_file).stat().st_mtime <= max(p.stat().st_mtime for p in inputs)


def job_count() -> int:
    text = os.environ.get("MAX_JOBS") or str(min(2, os.cpu_count() or 1))
    if not text.isdigit() or int(text) < 1:
        sys.exit(f"MAX_JOBS={text}: must be a positive number")
    return int(text)


with ParallelCompile(default=job_count(), needs_recompile=needs_recompile):
    setup(ext_modules=[core_extension()], cmdclass={"build_ext": BuildExt})
