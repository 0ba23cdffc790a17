"""The benchmarks run and decide; how fast anything is on this machine is not asked here."""

import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import bench_attention
import bench_bpe
import bench_dashboard
import bench_generation
import bench_gqa
import bench_int8
import bench_kv_cache
import bench_norms
import bench_ppo
import bench_skipgram
import bench_smollm2
import bench_tiny_lm
import bench_window
import bench_world
import measure
import trl_grpo
from bench_attention import Row
from bench_bpe import Encoding, Learning
from bench_dashboard import Opening
from measure import Goal

GOOD = [
    Row(4096, "pytorch", seconds=1, to_pytorch=1, to_whole=0.1, error=0, resident=5, tensors=4),
    Row(4096, "whole", seconds=10, to_pytorch=10, to_whole=1, error=1e-6, resident=800, tensors=800),
    Row(4096, "tiled", seconds=2, to_pytorch=2, to_whole=0.2, error=1e-6, resident=10, tensors=10),
]
fill = partial(partial, torch.ones, 2048)  # fill(n) is a call that makes 2048 x n float32 numbers


def test_attention_is_measured(monkeypatch):
    monkeypatch.setattr(bench_attention, "resident_bytes", lambda make, n: make(n)().nbytes)
    ways = (bench_attention.pytorch, bench_attention.loop, bench_attention.whole, bench_attention.tiled)
    rows = bench_attention.measure(4, ways, rounds=2, memory=True)
    assert [row.way for row in rows] == ["pytorch", "loop", "whole", "tiled"]
    assert all(math.isfinite(value) for row in rows for value in (row.seconds, row.to_pytorch, row.to_whole))
    assert all(row.error <= 1e-5 and row.resident > 0 and row.tensors > 0 for row in rows)
    bench_attention.show(rows)


def test_attention_goals():
    """Met by the good rows, also where resident memory is not measured; each worse one is told."""
    assert measure.report(bench_attention.goals(GOOD)) == 0
    assert measure.report(bench_attention.goals([replace(row, resident=None) for row in GOOD])) == 0
    for worse in ({"to_pytorch": 3.1}, {"resident": 41}, {"tensors": 41}, {"error": 1.1e-5}, {"error": math.nan}):
        assert measure.report(bench_attention.goals([*GOOD[:2], replace(GOOD[2], **worse)])) == 1


def test_norms_are_measured(capsys):
    """Ours move more bytes than the fused ones, and give the same numbers."""
    rows = bench_norms.measure(8, 6, rounds=2, compiled=False)
    moved = {(row.part, row.way): row.moved for row in rows}
    assert moved["layer_norm", "pytorch"] < 1.5 < 4 < moved["layer_norm", "ours"]
    assert measure.report(bench_norms.goals(rows)) == 0
    bench_norms.show(rows)
    slow = bench_norms.Row("gelu", "compiled", seconds=9, to_pytorch=1, moved=1, error=0)
    compiled = [replace(slow, part=part) for part in ("gelu", "layer_norm", "rms_norm")]
    assert measure.report(bench_norms.goals([*rows, *compiled])) == 1
    assert "NOT MET" in capsys.readouterr().out


def test_training_is_measured():
    shape = bench_tiny_lm.Shape(vocab_size=16, context=4, d_model=8, n_layers=1, n_heads=2, batch=2)
    faster = bench_tiny_lm.speed_ups(bench_tiny_lm.measure(shape, rounds=2))
    assert list(faster) == ["TinyLM", "GPT-2, default", "GPT-2, no dropout"]
    assert all(math.isfinite(ratio) for ratio in faster.values())


@pytest.mark.parametrize(("seconds", "status"), [(1.5, 0), (1.3, 1)])
def test_training_exits_by_its_goal(seconds, status, monkeypatch):
    times = {"TinyLM": [1, 1], "GPT-2, default": [seconds] * 2, "GPT-2, no dropout": [1, 1]}
    monkeypatch.setattr(bench_tiny_lm, "measure", lambda *_, **__: times)
    assert bench_tiny_lm.main() == status


def test_telling_is_measured():
    """Both loops, four words of three stories: the same words, and a goal that decides."""
    seconds, differing = bench_generation.measure(bench_generation.load_story_lm(), n=3, most=4, rounds=2)
    assert list(seconds) == ["shared loop", "loop before"] and differing == 0
    for before, differing, status in ((4, 1, 0), (3.9, 0, 1), (9, 2, 1)):
        times = {"shared loop": [1, 1], "loop before": [before] * 2}
        assert measure.report(bench_generation.goals(times, differing)) == status


def test_the_peer_has_our_shape():
    shape = bench_tiny_lm.Shape()
    ours, peer = bench_tiny_lm.tiny_lm(shape), bench_tiny_lm.gpt2(shape)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in peer.parameters())


def test_the_ratio_is_the_median_of_the_rounds():
    assert measure.median_ratio([1, 9, 8], [2, 3, 4]) == 2


def test_sharing_is_measured(monkeypatch, capsys):
    """All ways over a short cache; equal times meet no goal but the one that allows them."""
    monkeypatch.setattr(bench_gqa, "CONTEXTS", (16,))
    rows = [row for batch in bench_gqa.BATCHES for row in bench_gqa.measure(batch, 16, rounds=2)]
    made = {row.way: row.made for row in rows if (row.batch, row.n_kv_heads) == (8, 1)}
    assert made["grouped"] < made["expanded"] < made["repeated"]
    bench_gqa.show(rows)
    latent = bench_gqa.measure_latent(16, rounds=2)
    same = [replace(row, seconds=[1.0, 1.0]) for row in rows]
    capsys.readouterr()
    assert measure.report(bench_gqa.goals(same, {name: ([1.0, 1.0], 0) for name in latent})) == 1
    assert capsys.readouterr().out.count("NOT MET") == 13
    fast = [replace(row, seconds=[0.3 if row.n_kv_heads < 8 and row.way == "grouped" else 1.0] * 2) for row in rows]
    assert measure.report(bench_gqa.goals(fast, {"absorbed": ([0.5], 0), "written out": ([1.0], 0)})) == 0


def test_windows_are_measured(monkeypatch, capsys):
    """All ways at two lengths; equal times meet no goal of speed."""
    monkeypatch.setattr(bench_window, "LENGTHS", (32, 64))
    monkeypatch.setattr(bench_window, "BEHIND", (8, 24))
    monkeypatch.setattr(bench_window, "WINDOW", 8)
    monkeypatch.setattr(bench_window, "resident_bytes", lambda make, n: None)
    rows, steps = bench_window.attention_rows(), bench_window.step_rows()
    assert len(rows) == 10 and max(row["error"] for row in rows) < 1e-5
    assert steps[0]["bytes"] == steps[1]["bytes"] < steps[1]["whole"]
    bench_window.show(rows, steps)
    slow = [row | {"to_banded": 1.0} for row in rows]
    capsys.readouterr()
    assert measure.report(bench_window.goals(slow, steps)) == 1
    assert capsys.readouterr().out.count("NOT MET") >= 3


def test_eight_bits_are_measured(monkeypatch, capsys):
    """All ways of a small matrix and all kinds of a small model; equal times meet no goal of speed."""
    monkeypatch.setattr(bench_int8, "SHAPES", {"small": (64, 48)})
    monkeypatch.setattr(bench_int8, "TOKENS", (16, 256))
    products = bench_int8.measure_products(rounds=2)
    assert [row.way for row in products] == 2 * list(bench_int8.PRODUCTS)
    shape = bench_kv_cache.Shape("tiny", 48, d_model=32, n_layers=2, n_heads=2, d_hidden=64, context=40)
    read = [torch.arange(20)[None], torch.arange(20, 40)[None]]
    wholes = bench_int8.measure_model(bench_kv_cache.random_llama(shape), read, rounds=2)
    by_kind = {row.kind: row for row in wholes}
    assert list(by_kind) == list(bench_int8.KINDS)
    numbers, outputs = 2 * (4 * 32**2 + 3 * 32 * 64) + 48 * 32, 2 * (4 * 32 + 2 * 64 + 32) + 48
    assert by_kind["float32"].bytes == 4 * numbers + 4 * 5 * 32
    assert by_kind["W8A8, by token"].bytes == numbers + 4 * outputs + 4 * 5 * 32
    head = 48 * 32
    assert by_kind["4 bits, multiplied out"].bytes == (numbers - head) * 20 // 32 + head * 36 // 32 + 4 * 5 * 32
    bench_int8.show(products, wholes)
    capsys.readouterr()
    same = [replace(row, seconds=[1.0, 1.0]) for row in products]
    level = [replace(row, prefill_up=1, decode_up=1, worst=0, bytes=1) for row in wholes]
    assert measure.report(bench_int8.goals(same, level)) == 1
    assert capsys.readouterr().out.count("NOT MET") == 7
    fast = [replace(row, seconds=[1.0 if row.way == "float32" else 0.5] * 2) for row in products]
    good = [replace(row, prefill_up=2, decode_up=2, worst=0) for row in wholes]
    good = [replace(row, bytes=100 if row.kind == "float32" else 26) for row in good]
    assert measure.report(bench_int8.goals(fast, good)) == 0


def test_iterations_of_ppo_are_measured(monkeypatch, capsys):
    """All parts, both rollouts and the peer at small sizes; without trl its column is left out."""
    monkeypatch.setattr(trl_grpo, "is_installed", lambda: False)
    rows, (seconds, differing), peers = bench_ppo.measure_all((8, 16), (2, 3), rounds=1)
    assert [(row.batch, row.length) for row in rows] == [(8, 2), (8, 3), (16, 2), (16, 3)]
    assert all(sum(row.share(names) for names in bench_ppo.SPLIT.values()) == pytest.approx(1) for row in rows)
    assert rows[1].tokens - rows[0].tokens == 8 and differing == 0  # one column more of 8 rows
    assert [list(each) for each in (seconds, *peers.values())] == [
        ["cache", "no cache"],
        ["ours", "transformers"],
        ["ours", "transformers"],
        ["ours"],
    ]
    bench_ppo.show(rows, (seconds, differing), peers)
    assert "trl is not installed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("part", "seconds", "missed"),
    [("rollout", 1, 0), ("rollout", 1.8, 1), ("rollout", 0.2, 1), ("whole", 8, 2), ("no cache", 3, 1), ("trl", 0.9, 1)],
)
def test_the_goals_of_ppo(part, seconds, missed, capsys):
    """Seven parts of a second in a whole of seven, four times as much for four times the batch; each worse is told."""
    names = [name for names in bench_ppo.SPLIT.values() for name in names]
    small = {name: [1.0] for name in names} | {"whole": [7.0]}
    large = {name: [4 * each for each in its] for name, its in small.items()}
    if part in large:
        large[part] = [4.0 * seconds]
    rows = [bench_ppo.Row(16, 24, 1, small), bench_ppo.Row(64, 24, 1, large)]
    cache = {"cache": [1.0], "no cache": [seconds if part == "no cache" else 4.0]}
    peers = {"GRPO, an iteration": {"ours": [1.0], "trl": [seconds if part == "trl" else 1.0]}}
    assert measure.report(bench_ppo.goals(rows, (cache, 1), peers)) == int(missed > 0)
    assert capsys.readouterr().out.count("NOT MET") == missed


def test_trl_reads_the_ids_that_ours_reads():
    tokenizer = trl_grpo.id_tokenizer(30, end=1)
    ids = [1, 12, 21, 0, 1, 29]
    assert tokenizer(text=[trl_grpo.as_text(ids)])["input_ids"] == [ids]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 1)


def test_threads_are_as_before():
    before = torch.get_num_threads()
    seen = set()
    measure.cpu_seconds({"look": lambda: seen.add(torch.get_num_threads())}, rounds=2)
    assert seen == {1}
    assert torch.get_num_threads() == before


def test_resident_memory_of_a_known_size():
    size = measure.resident_bytes(fill, 2048)
    if size is None:
        pytest.skip("resident memory is not measured on this system")
    assert 0.9 <= size / (4 * 2048**2) <= 1.5


def test_nothing_short_of_a_goal_meets_it():
    assert not Goal("", math.nan, 1).met
    assert not Goal("", math.nan, 1, at_least=True).met


def test_the_worlds_candidates_run():
    texts = bench_world.least(3, 7)
    assert [len(text.split(" ")) for text in texts] == [7, 7, 7]
    assert bench_world.measure(n=5, rounds=1)[0] > 0


LEARNT = [Learning(512, "ours", 1, 1, 0, resident=8), Learning(512, "hugging_face", 1, 1, 0, resident=9)]
ENCODED = [Encoding("ours, cold", 2e6, 2, 0.1, 0), Encoding("ours, warm", 2e7, 20, 0.5, 0)]


def test_learning_is_measured(monkeypatch, capsys):
    """Both ways learn the same merges, and a table shows it, also where memory is not measured."""
    monkeypatch.setattr(bench_bpe, "resident_bytes", lambda make, n: len(make(n)()()))
    rows = bench_bpe.measure_learning(3000, 300, rounds=2)
    assert [(row.way, row.vocab_size, row.differing, row.resident) for row in rows] == [
        ("ours", 300, 0, 44),
        ("hugging_face", 300, 0, 44),
    ]
    assert all(math.isfinite(value) and value > 0 for row in rows for value in (row.seconds, row.to_peer))
    for shown in (rows, [replace(row, resident=None) for row in rows]):
        bench_bpe.show_learning(shown)
        assert len(capsys.readouterr().out.splitlines()) == 3


def test_other_texts_are_learnt_from_alike():
    """Each kind has the bytes that were asked for, and the same merges both ways; ours is timed on more of it, too."""
    for kind in bench_bpe.KINDS:
        assert abs(len(bench_bpe.text_of(kind, 600).encode()) - 600) < 3
        rows = bench_bpe.measure_learning(600, 300, 2, kind)
        assert [(row.kind, row.differing, row.resident) for row in rows] == [(kind, 0, None)] * 2
    seconds = bench_bpe.measure_kinds(400, 300, rounds=1)
    assert list(seconds) == list(bench_bpe.KINDS) and list(seconds["DNA"]) == [100, 200, 400]


def test_rungs_and_growth_are_measured():
    rungs = bench_bpe.measure_rungs(500, 5, rounds=2)
    assert list(rungs) == ["learn_by_recounting", "learn_from_distinct", "learn"]
    assert rungs["learn"][1] == 1
    by_text, by_size = bench_bpe.measure_growth(4000, (260, 300), rounds=2)
    assert list(by_text) == [1000, 2000, 4000] and list(by_size) == [260, 300]
    assert bench_bpe.slope({10: 3, 20: 12, 40: 48}) == pytest.approx(2)


def test_encoding_is_measured(capsys):
    rows = bench_bpe.measure_encoding(3000, 300, rounds=2)
    ways = ["ours, cold", "ours, warm", "hugging_face, cold", "hugging_face, cold and fast", "tiktoken"]
    assert [(row.way, row.differing) for row in rows] == [(way, 0) for way in ways]
    assert all(math.isfinite(row.speed) and row.speed > 0 for row in rows)
    bench_bpe.show_encoding(rows)
    assert len(capsys.readouterr().out.splitlines()) == 6


@pytest.mark.parametrize(
    ("learning", "cold", "warm"),
    [
        ({"differing": 1}, {}, {}),
        ({"to_peer": math.nan}, {}, {}),
        ({}, {"to_hugging_face": 1.99}, {}),
        ({}, {}, {"to_tiktoken": 0.49}),
    ],
)
def test_bpe_exits_by_its_goals(learning, cold, warm, monkeypatch):
    """All that is promised is met by the good rows, and each worse one is told."""
    monkeypatch.setattr(bench_bpe, "measure_kinds", lambda *_, **__: {"DNA": {1: 1, 2: 2}})
    monkeypatch.setattr(bench_bpe, "measure_rungs", lambda *_, **__: {"learn": (1, 1)})
    monkeypatch.setattr(bench_bpe, "measure_growth", lambda *_, **__: ({1: 1, 2: 2}, {1: 1, 2: 2}))
    for learnt, encoded, status in (
        (LEARNT, ENCODED, 0),
        ([replace(LEARNT[0], **learning), LEARNT[1]], [replace(ENCODED[0], **cold), replace(ENCODED[1], **warm)], 1),
    ):
        monkeypatch.setattr(bench_bpe, "measure_learning", lambda *_, rows=learnt, **__: rows)
        monkeypatch.setattr(bench_bpe, "measure_encoding", lambda *_, rows=encoded, **__: rows)
        assert bench_bpe.main() == status


def test_the_real_models_ways_are_measured(capsys):
    """Here three loops over a small model, of which one tells no ids, and one goes wrong once."""
    way = bench_smollm2.ours(bench_tiny_lm.tiny_lm(bench_tiny_lm.Shape(16, 12, 8, 1, 2)))
    other = lambda prompt, new: [(token + (i == 2)) % 16 for i, token in enumerate(way(prompt, new))]  # noqa: E731
    ways = {"ours": way, "transformers": other, "llama.cpp": lambda *given: way(*given) and None}
    rows = bench_smollm2.measure(ways, [1] * 9, (3, 5), new=4, rounds=2)
    assert [(row.prompt, row.way, row.differing) for row in rows] == [
        (n, name, differing) for n in (3, 5) for name, differing in zip(ways, (1, 0, None), strict=True)
    ]
    assert all(row.prefill > 0 and row.prefill_to_peer > 0 for row in rows)
    bench_smollm2.show(rows)
    assert len(capsys.readouterr().out.splitlines()) == 7


@pytest.mark.parametrize(
    ("loading", "worse"),
    [({"model": 3.1}, {}), ({"peak": 1.2e9}, {}), ({}, {"differing": 1}), ({}, {"decode_to_peer": 0.99})],
)
def test_the_real_models_goals(loading, worse):
    """All met by the good numbers, also without the memory; each worse one is told. What is slow to read is not."""
    fine = bench_smollm2.Loading(3, 9, 1.1e9)
    row = bench_smollm2.Row(16, "ours", prefill=1, prefill_to_peer=0.1, decode=1, decode_to_peer=1, differing=0)
    rows = [row, replace(row, way="llama.cpp", differing=None, decode_to_peer=0.5)]
    for good in (fine, replace(fine, peak=None)):
        assert measure.report(bench_smollm2.goals(good, rows)) == 0
    assert measure.report(bench_smollm2.goals(replace(fine, **loading), [replace(row, **worse), rows[1]])) == 1


def test_decoding_is_measured(monkeypatch, capsys):
    """Two layers, 4 bits too: every way but those of 8 and 4 bits writes transformers' tokens, and all bytes count."""
    monkeypatch.setattr(bench_kv_cache.kv_work, "read_peak", lambda: {"rows": 1e9, "columns": 2e9, "sum": 3e9})
    monkeypatch.setattr(bench_kv_cache, "PROMPT", 20)
    shape = bench_kv_cache.Shape("tiny", 48, d_model=32, n_layers=2, n_heads=2, d_hidden=64, context=40)
    rows, profiles = bench_kv_cache.measure_random(shape, ("int8", "4-bit"), new=3, few=2, rounds=2)
    slow, stored = ["no cache", "transformers, no cache"], ["rows", "laid out", "int8", "4-bit"]
    assert [row.way for row in rows] == [*slow, "concat", *stored, "transformers"]
    assert all(row.differing == 0 for row in rows if row.way not in ("int8", "4-bit"))
    by_way = {row.way: row for row in rows}
    numbers = 2 * (4 * 32**2 + 3 * 32 * 64) + 48 * 32 + 5 * 32  # layers, head, norms; below, the cache of 22 tokens
    assert by_way["rows"].bytes == 4 * numbers + 4 * 2 * 2 * 32 * 22
    assert by_way["rows"].bytes > 2 * by_way["int8"].bytes > 2 * by_way["4-bit"].bytes
    assert all(row.bytes is None for row in rows if row.way in slow) and all(by_way[way].products > 0 for way in stored)
    assert list(profiles["tiny", "laid out"]) == [*bench_kv_cache.PARTS, "rest"]
    bench_kv_cache.show(rows)
    bench_kv_cache.show_profiles(profiles)
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(rows) + 2


@pytest.mark.parametrize(
    "worse",
    [
        {"way": "rows", "differing": 1},
        {"way": "rows", "to_peer": 0.4},
        {"way": "laid out", "to_peer": 1.1},
        {"way": "laid out", "decode": 49},
        {"way": "int8", "to_peer": 1.2},
        {"way": "4-bit", "to_peer": 2.1},
        {"way": "llama.cpp", "to_peer": 5.0},
    ],
)
def test_decodings_goals(worse):
    """All met by the good rows of a random model and the real one; each worse one is told."""
    speeds = {"no cache": 0.1, "concat": 0.9, "rows": 1, "laid out": 1.3, "int8": 1.3, "transformers": 1}
    rows = []
    for name, more in (("25 M", {}), ("110 M", {}), ("real, 135 M", {"4-bit": 2.4, "llama.cpp": 2.9})):
        for way, speed in (speeds | more).items():
            rows.append(bench_kv_cache.Row(name, way, 65, speed, 0, bytes=1, peaks={"rows": 100}, products=0.5))
    assert measure.report(bench_kv_cache.goals(rows)) == 0
    name = "real, 135 M" if worse["way"] in ("4-bit", "llama.cpp") else "25 M"
    bad = [replace(row, **worse) if (row.model, row.way) == (name, worse["way"]) else row for row in rows]
    assert measure.report(bench_kv_cache.goals(bad)) == 1


def test_skipgram_is_measured():
    rows = bench_skipgram.measure(30, epochs=1, seeds=1, rounds=1)
    assert [row.name for row in rows] == ["ours", "gensim"]
    assert all(row.speed > 0 and 0 <= share <= 1 for row in rows for share in row.scores)
    bench_skipgram.show(rows)


def test_skipgram_goals():
    good = [bench_skipgram.Row("ours", 100, 5, (0.8, 0.7)), bench_skipgram.Row("gensim", 500, 1, (0.75, 0.75))]
    assert measure.report(bench_skipgram.goals(good)) == 0
    for worse in ({"slower": 8.1}, {"scores": (0.7, 0.73)}, {"scores": (math.nan,)}):
        assert measure.report(bench_skipgram.goals([replace(good[0], **worse), good[1]])) == 1


@pytest.mark.parametrize(("button", "least", "status"), [(2, 2, 0), (2, 1, 1), (4, 4, 1)])
def test_the_dashboard_exits_by_its_goals(button, least, status, monkeypatch, capsys):
    """Too slow beside the least page, or for a reader."""
    found = {"dashboard": [Opening(1, button, 9)] * 3, "least": [Opening(1, least, 9)] * 3}
    monkeypatch.setattr(bench_dashboard, "measure", lambda rounds: found)
    monkeypatch.setattr(bench_dashboard, "CHROMIUM", "chromium")
    assert bench_dashboard.main() == status
    assert f"{button}.0" in capsys.readouterr().out
