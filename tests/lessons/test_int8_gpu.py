"""Lesson 12 on a GPU: every path runs small on the CPU, and what was stored is what would be measured."""

import json

import int8_gpu
import int8_gpu_ways
import pytest
import torch
from int8 import W8A8Linear
from int8_gpu import HERE, SWEEP, flat
from torch import nn

from shared.sweeps import stored


@pytest.fixture
def few_calls(monkeypatch):
    """Times say nothing here."""
    monkeypatch.setattr(int8_gpu_ways, "ROUNDS", 2)
    monkeypatch.setattr(int8_gpu_ways, "CALLS", 1)


@pytest.mark.parametrize("job", SWEEP.quick, ids=lambda job: "-".join(map(str, job.values())))
def test_every_path_small(job, few_calls):
    found = flat(json.loads(json.dumps(job | int8_gpu.run(job))))
    by_way = {row["way"]: row for row in found}
    assert len(by_way) == len(found) and all(job.items() <= row.items() for row in found)
    assert all(len(row["seconds"]) == 2 for row in found)
    assert {row["way"] for row in found if row["graph"] is None} == int8_gpu_ways.ASKS & by_way.keys()
    if job["part"] == "product":
        assert by_way["W8A8"]["exact"] and by_way["float32"]["error"] < 1e-6 < by_way["bfloat16"]["error"]
        assert by_way["split"]["error"] < by_way["W8A8"]["error"]


def test_what_is_planted_changes_nothing():
    """float32's rounding: a few units in the last place of logits of about 3."""
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        plain, planted = (int8_gpu.llama("small", large)(tokens) for large in (1, int8_gpu.LARGE))
    torch.testing.assert_close(planted, plain, rtol=0, atol=1e-4)


def test_unchecked_is_by_token_without_the_check():
    linear, x = nn.Linear(24, 8).requires_grad_(False), torch.randn(2, 3, 24)
    assert torch.equal(int8_gpu_ways.Unchecked(linear)(x), W8A8Linear(linear)(x))
    int8_gpu_ways.Unchecked(linear)(x.fill_(torch.nan))


def test_sizes_without_a_kernel_are_named(monkeypatch):
    """As on a GPU: one token alone goes through float64."""
    kernel = torch._int_mm

    def picky(a, b):
        if len(a) < 17:
            raise RuntimeError("self.size(0) needs to be greater than 16")
        return kernel(a, b)

    monkeypatch.setattr(torch, "_int_mm", picky)
    for size, wanted in ((16, "float64"), (17, "int8")):
        codes = torch.ones(size, 64, dtype=torch.int8)
        assert int8_gpu.integers(codes, codes[:8]) == wanted


@pytest.mark.skipif(HERE == "cuda", reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["int8_gpu.py"])
    assert int8_gpu.main_gpu() == 1 and "--cpu-check" in capsys.readouterr().out
    assert not SWEEP.underway.exists()


@pytest.mark.skipif(not SWEEP.results.exists(), reason="nothing was measured on a GPU yet")
def test_what_a_gpu_measured_is_what_would_be_measured():
    """The stored jobs are today's. (That the code is the same byte for byte only a GPU could mend.)"""
    rows, _ = stored(SWEEP.results)
    assert [{name: row[name] for name in job} for row, job in zip(rows, SWEEP.jobs, strict=True)] == SWEEP.jobs
    assert all(row["exact"] for row in rows if row["part"] == "product")
