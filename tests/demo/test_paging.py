"""The demo's own arithmetic, with neither peer nor model."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from rdma_kv.cli.demo import verdict
from rdma_kv.cli.demo.paging import PagedCache, draw_tables, pool_blocks
from rdma_kv.cli.demo.settings import HEAD_DIM, KV_HEADS, DemoError, Settings
from rdma_kv.cli.demo.source import check_model_can_run


@pytest.mark.parametrize("tokens", [2, 15, 16, 17, 100])
def test_what_was_put_into_blocks_comes_back_in_order(tokens: int) -> None:
    settings = Settings(layers=2, prompt_tokens=tokens)
    cache = PagedCache(settings, pool_blocks(settings)[1])
    table = draw_tables(settings).decode
    random = np.random.default_rng(tokens)
    key, value = random.standard_normal((2, KV_HEADS, tokens, HEAD_DIM)).astype(np.float32)

    cache.put(1, table, key, value)

    back_key, back_value = cache.get(1, table, tokens - 1)
    assert np.array_equal(back_key, key[:, :-1])
    assert np.array_equal(back_value, value[:, :-1])
    assert not cache.keys[0].any()  # the other layer
    elsewhere = np.setdiff1d(np.arange(len(cache.keys[1])), table)
    assert not cache.keys[1][elsewhere].any()


def test_both_tables_are_permutations_and_differ() -> None:
    tables = draw_tables(Settings(prompt_tokens=1000))

    assert len(set(tables.prefill.tolist())) == len(set(tables.decode.tolist())) == 63
    assert not np.array_equal(tables.prefill, tables.decode)
    assert not np.array_equal(np.sort(tables.decode), tables.decode)


def test_the_tag_tells_runs_of_other_parameters_apart() -> None:
    tags = {Settings(seed=seed, layers=layers).tag for seed in range(5) for layers in range(1, 5)}

    assert len(tags) == 20
    assert Settings(transport="tcp").tag == Settings(transport="cma").tag
    assert all(0 < tag < 2**32 for tag in tags)


@pytest.mark.parametrize(
    ("got", "corrupted_block", "status", "words"),
    [
        ([1, 2, 3], None, 0, "equal"),
        ([1, 9, 3], None, 1, "DIFFER from number 1"),
        ([1, 9, 3], 7, 1, "corruption caught: block 7"),
        ([1, 2, 3], 7, 4, "NOT NOTICED"),
    ],
)
def test_tokens_are_judged(
    got: list[int], corrupted_block: int | None, status: int, words: str
) -> None:
    judged = verdict.judge_tokens(got, [1, 2, 3], corrupted_block)

    assert judged.exit_status == status
    assert words in judged.text


@pytest.mark.parametrize(
    ("differing", "corrupted_block", "status", "words"),
    [
        ([], None, 0, "all 10 blocks are equal"),
        ([(0, 3)], None, 1, "BLOCKS DIFFER: 1 of 10"),
        ([(0, 3)], 7, 1, "corruption caught"),
        ([], 7, 4, "NOT NOTICED"),
    ],
)
def test_blocks_are_judged(
    differing: list[tuple[int, int]], corrupted_block: int | None, status: int, words: str
) -> None:
    judged = verdict.judge_blocks(differing, 10, corrupted_block)

    assert judged.exit_status == status
    assert words in judged.text


def test_without_torch_the_command_to_install_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(DemoError, match="pip install torch transformers"):
        check_model_can_run()
