"""What came out of a run in GPU memory: the tokens, and every byte that they came from."""

from __future__ import annotations

from dataclasses import replace

from rdma_kv.cli.demo.events import Fields
from rdma_kv.cli.demo.verdict import DIFFERENT, EQUAL, UNNOTICED, Verdict, judge_tokens


def judge(results: dict[str, Fields]) -> Verdict:
    """Prefill is missing where each side judges for itself."""
    decode, reference = results["decode"], results["reference"]
    corrupted_block = decode.get("corrupted_block")
    verdict = judge_tokens(decode["tokens"], reference["tokens"], corrupted_block)
    source = results.get("prefill", reference)
    wrong = _differing(decode["kv"], source["kv"])
    if corrupted_block is not None:
        if verdict.exit_status == UNNOTICED and wrong:
            text = (
                f"corruption caught: block {corrupted_block} of layer 0 was spoiled on purpose, "
                f"and the checksums of {_layers(wrong)} differ, though all tokens are equal"
            )
            return Verdict(DIFFERENT, text)
        return verdict
    if wrong:
        of = "prefill's" if "prefill" in results else "the reference's"
        text = f"BYTES DIFFER: decode's {_layers(wrong)} are not {of}; {verdict.text}"
        return replace(verdict, exit_status=DIFFERENT, text=text)
    if verdict.exit_status != EQUAL:
        return replace(verdict, text=f"{verdict.text}; {_why(results)}")
    count = len(decode["kv"])
    return replace(
        verdict, text=f"{verdict.text}; K and V of {count} layers are equal to {_whom(results)}"
    )


def _whom(results: dict[str, Fields]) -> str:
    return "prefill's, by checksum" if "prefill" in results else "the reference's, by checksum"


def _why(results: dict[str, Fields]) -> str:
    """Tokens differ although decode has the bytes that prefill sent."""
    source, reference = results.get("prefill"), results["reference"]
    if source and (wrong := _differing(source["kv"], reference["kv"])):
        return (
            "every byte arrived, but prefill's GPU computed other ones than the reference's in "
            f"{_layers(wrong)}: {source['device']}, {reference['device']}"
        )
    return "every byte arrived: the GPU does not compute the same twice"


def _differing(some: list[str], others: list[str]) -> list[int]:
    return [i for i, pair in enumerate(zip(some, others, strict=True)) if pair[0] != pair[1]]


def _layers(numbers: list[int]) -> str:
    shown = ", ".join(str(n) for n in numbers[:3]) + (", ..." if len(numbers) > 3 else "")
    return f"layer {shown}" if len(numbers) == 1 else f"layers {shown}"
