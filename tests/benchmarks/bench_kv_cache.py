"""Lesson 08's decoding, from no cache to a cache and 4 bits: time, bytes and speed beside transformers and llama.cpp.

    .venv/bin/python tests/benchmarks/bench_kv_cache.py

Two random Llamas and the real model, batch 1, each token the likeliest; transformers computes with the same weights in
float32. A token's time is that of more new tokens less that of one. Its bytes are counted (`kv_work`), and compared
with what a product of a large matrix and one vector, and a plain sum, read in the same run. llama.cpp's 4-bit step
multiplies whole numbers where PyTorch's unpacks to bfloat16, so half of its speed is the goal. Exits with status 1 if a
goal is not met.
"""

import copy
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import bench_smollm2
import torch
from measure import Goal, cpu_seconds, one_thread, print_table, report
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from shared.gguf_tokenizer import read_tokenizer
from shared.hf_model import load_model
from shared.hf_names import LLAMA_NAMES
from shared.layers import SwiGLU
from shared.rotary import RotaryAttention, no_positions
from shared.smollm2 import INSTALL, is_installed, smollm2_file
from shared.texts import texts
from shared.tiny_lm import TinyLM

sys.path.insert(0, str(Path(__file__).parents[2] / "08_kv_speedrun"))
import kv_loops
import kv_work
from kv_cache import ConcatCache, PreallocatedCache
from kv_weights import KINDS, sharing, store_as

PROMPT, NEW, FEW, ROUNDS = 192, 32, 4, 5  # tokens of the prompt; how many are decoded, and without a cache
LAID_OUT, STORED = "laid out", ("bfloat16", "int8", "int8 x int8")
GATE = "blocks.feed_forward.gate"
PARTS = ("products", "attention", "norms", "rotary", "cache writes")


@dataclass(frozen=True)
class Shape:
    """A random Llama's sizes; its head is not tied."""

    name: str
    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    d_hidden: int
    context: int = 256


SHAPES = (Shape("25 M", 6144, 512, 6, 8, 1376), Shape("110 M", 16_384, 768, 12, 12, 2048))
REAL = "real, 135 M"


def random_llama(shape: Shape) -> TinyLM:
    """Ours, in eval mode."""
    torch.manual_seed(0)
    sizes = (shape.vocab_size, shape.context, shape.d_model, shape.n_layers, shape.n_heads)
    parts = {"attention": partial(RotaryAttention, bias=False), "norm": partial(nn.RMSNorm, eps=1e-5)}
    parts |= {"feed_forward": partial(SwiGLU, d_hidden=shape.d_hidden), "positions": no_positions}
    return TinyLM(*sizes, **parts, tied=False).eval()


def their_llama(shape: Shape, model: TinyLM) -> LlamaForCausalLM:
    """transformers' model, with the weights of ours."""
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_hidden,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        max_position_embeddings=shape.context,
        rms_norm_eps=1e-5,
        bos_token_id=None,
        eos_token_id=None,
    )
    peer = LlamaForCausalLM(config).eval()
    names = LLAMA_NAMES | {
        "blocks.feed_forward.gate_up": [*LLAMA_NAMES[GATE], *LLAMA_NAMES[GATE.replace("gate", "up")]]
    }
    weights = {}
    for name, weight in model.state_dict().items():
        part = name.removesuffix(".weight").split(".")
        layer = part.pop(1) if part[0] == "blocks" else ""
        theirs = [each.format(layer) for each in names[".".join(part)]]
        weights |= dict(zip(theirs, weight.chunk(len(theirs)), strict=True))
    head = weights.pop("lm_head")
    peer.model.load_state_dict({f"{name}.weight": weight for name, weight in weights.items()})
    peer.lm_head.load_state_dict({"weight": head})
    return peer


def cached(model: TinyLM, kind: type = PreallocatedCache) -> bench_smollm2.Way:
    """The lesson's loop with one of its caches."""
    attention = model.blocks[0].attention

    def way(prompt, new):
        room = {} if kind is ConcatCache else {"capacity": len(prompt) + new}
        sizes = {"n_layers": len(model.blocks), "batch": 1, "n_kv_heads": attention.n_kv_heads}
        return kv_loops.generate(model, [prompt], new, kind(**sizes, d_head=attention.d_head, **room))[0]

    return way


def models(model: TinyLM, kinds: Sequence[str]) -> dict[str, TinyLM]:
    """The same weights in each way that they are stored here."""
    stored = {"rows": model, LAID_OUT: kv_work.lay_out(copy.deepcopy(model))}
    return stored | {kind: store_as(sharing(model), kind) for kind in kinds}


@dataclass(frozen=True)
class Row:
    """One way of one model.

    decode, to_peer, differing: as in `bench_smollm2.Row`. bytes: read for a token, None where they are not counted.
    peaks: bytes a second of `kv_work.read_peak`. products: share of a token's time that the matrix products alone take.
    """

    model: str
    way: str
    decode: float
    to_peer: float
    differing: int | None
    bytes: float | None
    peaks: dict[str, float]
    products: float | None

    def share(self, peak: str) -> float:
        """What is read in a second, as a share of what that probe reads."""
        return self.bytes * self.decode / self.peaks[peak]


def measure(name, model, peer, more_ways, text, kinds, new=NEW, few=FEW, rounds=ROUNDS) -> list[Row]:
    """All ways of one model. peer: transformers' model of the same weights; more_ways: others', by name."""
    ours, prompt = models(model, kinds), len(text)
    ways = {"concat": cached(model, ConcatCache)} | {way: cached(stored) for way, stored in ours.items()}
    ways |= {"transformers": bench_smollm2.by_generate(peer), **more_ways}
    slow = {"no cache": partial(kv_loops.recompute, model), "transformers": ways["transformers"]}
    slow["transformers, no cache"] = bench_smollm2.by_generate(peer, use_cache=False)
    found = bench_smollm2.measure(slow, text, (prompt,), few, max(2, rounds // 2))
    found = [row for row in found if row.way != "transformers"]
    found += bench_smollm2.measure(ways, text, (prompt,), new, rounds)
    with one_thread():
        peaks = kv_work.read_peak()
    alone = cpu_seconds({way: partial(products, stored) for way, stored in ours.items()}, 2 * rounds + 1)
    rows = []
    for row in found:
        stored = ours.get(row.way, None if row.way in more_ways else model)
        read = None if stored is None or "no cache" in row.way else kv_work.work(stored, 1, prompt + new // 2).bytes
        share = statistics.median(alone[row.way]) * row.decode if row.way in alone else None
        rows.append(Row(name, row.way, row.decode, row.decode_to_peer, row.differing, read, peaks, share))
    return rows


@torch.inference_mode()
def products(model: TinyLM) -> None:
    """Every matrix product of one token, and nothing else."""
    for module in kv_work.matrices(model):
        module(torch.ones(1, module.in_features))
    if model.head is None:
        nn.functional.linear(torch.ones(1, model.embedding.embedding_dim), model.embedding.weight)


@torch.inference_mode()
def profile(model: TinyLM, text: Sequence[int], steps: int = NEW) -> dict[str, float]:
    """Milliseconds of a token by part; "rest" is Python, sums, activations and the clock that is read between parts."""
    spent, model = dict.fromkeys(PARTS, 0.0), sharing(model)
    attention = model.blocks[0].attention
    cache = PreallocatedCache(len(model.blocks), 1, attention.n_kv_heads, len(text) + steps, attention.d_head)
    if model.head is None:  # as a module it can be timed
        model.head = nn.Linear(*model.embedding.weight.shape[::-1], bias=False, device="meta")
        model.head.weight = model.embedding.weight
    timed = [(it, "forward", "products") for it in kv_work.matrices(model)]
    timed += [(it, "forward", "norms") for it in model.modules() if isinstance(it, nn.RMSNorm)]
    for block in model.blocks:
        timed += [(block.attention, "attend", "attention"), (block.attention, "place", "rotary")]
    with one_thread():
        kv_loops.prefill(model, torch.tensor([list(text)]), cache)
        for owner, name, part in [*timed, (cache, "store", "cache writes")]:
            setattr(owner, name, _timing(getattr(owner, name), part, spent))
        start = time.process_time()
        for token in list(text)[:1] * steps:
            model(torch.tensor([[token]]), cache, last=1)
        whole = time.process_time() - start
    spent["rest"] = whole - sum(spent.values())
    return {part: 1e3 * seconds / steps for part, seconds in spent.items()}


def _timing(call: Callable, part: str, spent: dict[str, float]) -> Callable:
    def timed(*given, **how):
        start = time.process_time()
        result = call(*given, **how)
        spent[part] += time.process_time() - start
        return result

    return timed


def goals(rows: Sequence[Row]) -> list[Goal]:
    """What is promised of each model that was measured; nothing of llama.cpp where it was not."""
    by = {(row.model, row.way): row for row in rows}
    promised = []

    def at_least(words, value, limit):
        promised.append(Goal(words, value, limit, at_least=True))

    for name in dict.fromkeys(row.model for row in rows):
        peer = {row.way: row.to_peer for row in rows if row.model == name}
        exact = ("no cache", "concat", "rows", LAID_OUT)
        other = sum(by[name, way].differing for way in exact)
        promised.append(Goal(f"{name}: float32 tokens that are not transformers'", other, 0))
        words = f"{name}: laid out, speed as a multiple of transformers'"
        at_least(words, peer[LAID_OUT], 1.15 if name == REAL else 1.3)
        at_least(f"{name}: speed as a multiple of no cache, prompt of {PROMPT}", peer["rows"] / peer["no cache"], 5)
        at_least(f"{name}: int8's speed as a multiple of float32's, laid out", peer["int8"] / peer[LAID_OUT], 1)
        if name != REAL:
            least = 0.5 if name == SHAPES[0].name else 0.65
            at_least(f"{name}: laid out, share of the probe `rows`", by[name, LAID_OUT].share("rows"), least)
            continue
        at_least(f"{name}: 4 bits, speed as a multiple of transformers'", peer["4-bit"], 2.2)
        at_least(f"{name}: 4 bits, speed as a multiple of llama.cpp's", peer["4-bit"] / peer["llama.cpp"], 0.5)
    return promised


def show(rows: Sequence[Row]) -> None:
    """Print the rows as a table; "of rows" and "of the sum" are shares of what the two probes read."""
    head = ["model", "way", "ms/token", "tokens/s", "x transformers", "MB/token", "GB/s", "of rows", "of the sum"]
    print_table(
        [*head, "products alone", "other tokens"],
        [
            [
                row.model,
                row.way,
                f"{1e3 / row.decode:.2f}",
                f"{row.decode:.1f}",
                f"{row.to_peer:.2f}",
                *_read(row),
                "-" if row.products is None else f"{row.products:.0%}",
                "-" if row.differing is None else str(row.differing),
            ]
            for row in rows
        ],
    )


def _read(row):
    if row.bytes is None:
        return ["-"] * 4
    shares = (f"{row.share(peak):.0%}" for peak in ("rows", "sum"))
    return [f"{row.bytes / 1e6:.1f}", f"{row.bytes * row.decode / 1e9:.1f}", *shares]


def show_profiles(found: dict[tuple[str, str], dict[str, float]]) -> None:
    """Print where a token's time goes: milliseconds, and each part's share."""
    print_table(
        ["model", "way", "ms/token", *PARTS, "rest"],
        [
            [*key, f"{sum(parts.values()):.2f}", *(f"{part / sum(parts.values()):.0%}" for part in parts.values())]
            for key, parts in found.items()
        ],
    )


def measure_random(shape: Shape, kinds: Sequence[str] = STORED, **how) -> tuple[list[Row], dict]:
    """The rows of a random model, and the profile of its matrices as they are laid out."""
    model = random_llama(shape)
    text = torch.randint(shape.vocab_size, (PROMPT,), generator=torch.Generator().manual_seed(0)).tolist()
    rows = measure(shape.name, model, their_llama(shape, model), {}, text, kinds, **how)
    return rows, {(shape.name, LAID_OUT): profile(kv_work.lay_out(model), text)}


def measure_real() -> tuple[list[Row], dict]:
    """The rows of the real model, and the profiles of three ways to store it."""
    from transformers import AutoModelForCausalLM

    path = smollm2_file()
    model, text = load_model(path), read_tokenizer(path).encode(texts()["letter"])[:PROMPT]
    peer = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    rows = measure(REAL, model, peer, {"llama.cpp": bench_smollm2.llama_cpp(path)}, text, tuple(KINDS))
    profiles = {(REAL, kind): profile(store_as(sharing(model), kind), text) for kind in ("int8", "4-bit")}
    return rows, {(REAL, LAID_OUT): profile(kv_work.lay_out(model), text), **profiles}


def main() -> int:
    """Measure and print everything; returns the exit status."""
    jobs = [partial(measure_random, shape) for shape in SHAPES]
    if is_installed():
        jobs.append(measure_real)
    else:
        print(f"the real model is not installed and not measured: {INSTALL}")
    found = [job() for job in jobs]
    rows = [row for each, _ in found for row in each]
    print(f"Decoding behind {PROMPT} tokens, {NEW} of them, CPU seconds, one thread, batch 1; probes of a matrix read")
    for name in dict.fromkeys(row.model for row in rows):
        peaks = next(row.peaks for row in rows if row.model == name)
        print(f"{name}: " + ", ".join(f"{peak} {speed / 1e9:.1f} GB/s" for peak, speed in peaks.items()))
    show(rows)
    print("Where a token's time goes")
    show_profiles({key: parts for _, profiles in found for key, parts in profiles.items()})
    return report(goals(rows))


if __name__ == "__main__":
    sys.exit(main())
