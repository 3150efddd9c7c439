"""What the README shows is what works."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from rdma_kv import Config, _errors

from .test_demo import environment

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_python_of_the_readme_runs() -> None:
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

    ran = subprocess.run(
        [sys.executable, "-c", code[0]],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert len(code) == 1
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("page", ["README.md", "docs/configuration.md"])
def test_every_variable_is_described(page: str) -> None:
    told = set(re.findall(r"KVCACHE_[A-Z_]+[A-Z]", (ROOT / page).read_text()))

    known = {row.variable for row in Config().table()}
    assert known <= told
    assert len(known) == sum("setting" in field.metadata for field in fields(Config))


def test_every_error_is_in_the_tree() -> None:
    names = [name for name, value in vars(_errors).items() if isinstance(value, type)]

    assert [name for name in names if name not in README] == []


@pytest.mark.parametrize("page", ["README.md", *(str(p) for p in ROOT.glob("docs/**/*.md"))])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    path = ROOT / page

    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target
