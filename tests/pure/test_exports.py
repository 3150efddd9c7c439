"""What `import rdma_kv` offers is what it says it offers."""

from __future__ import annotations

import inspect

import rdma_kv


def public_names() -> set[str]:
    return {
        name
        for name, value in vars(rdma_kv).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }


def test_every_public_name_is_in_all_and_nothing_else():
    assert public_names() | {"__version__"} == set(rdma_kv.__all__)


def test_every_exception_of_the_tree_is_exported():
    from rdma_kv import _errors

    errors = {name for name, value in vars(_errors).items() if inspect.isclass(value)}

    assert errors <= set(rdma_kv.__all__)


def test_every_public_class_and_method_says_what_it_is():
    for name in rdma_kv.__all__:
        value = getattr(rdma_kv, name)
        if not inspect.isclass(value):
            continue
        assert inspect.getdoc(value), name
        for method, member in vars(value).items():
            if not method.startswith("_") and callable(member):
                assert inspect.getdoc(member), f"{name}.{method}"
