"""The real model in the shared decoder: what loading costs, and its speed beside transformers and llama.cpp.

    .venv/bin/python tests/benchmarks/bench_smollm2.py

All three read the same file, and each always takes the likeliest token. Ours and transformers' compute in float32;
llama.cpp's with the weights' 4 bits as they are stored, which is another arithmetic, so there is no goal beside it.
Prefill is the time of one new token, decoding that of 32 more. Exits with status 1 if a goal is not met.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from measure import Goal, cpu_seconds, in_fresh_process, median_ratio, one_thread, peak_so_far, print_table, report

from shared.generation import generate, greedy
from shared.gguf_tokenizer import read_tokenizer
from shared.hf_model import load_model
from shared.smollm2 import INSTALL, is_installed, smollm2_file
from shared.texts import texts
from shared.tiny_lm import TinyLM

PROMPTS, NEW, ROUNDS = (16, 128, 512), 32, 7  # tokens of a prompt; how many are decoded
FASTER, GOAL_SECONDS, GOAL_BYTES = 1.0, 3, 1.1e9

Way = Callable[[list[int], int], list[int] | None]  # prompt, how many new tokens -> these, None if it tells no ids


@dataclass(frozen=True)
class Loading:
    """CPU seconds of loading the model, and of it and the tokenizer. peak: bytes of the whole process at its peak."""

    model: float
    both: float
    peak: int | None


def load() -> Loading:
    """Load all here; libraries are imported beforehand."""
    with one_thread():
        start = time.process_time()
        path = smollm2_file()
        model = load_model(path)
        middle = time.process_time()
        tokenizer = read_tokenizer(path)
        end = time.process_time()
    assert model.vocab_size == tokenizer.vocab_size
    return Loading(middle - start, end - start, peak_so_far())


def ours(model: TinyLM) -> Way:
    """The shared loop."""
    return lambda prompt, new: generate(model, [prompt], new, rules=[greedy])[0]


def transformers(path: Path) -> Way:
    """transformers' own reading of the file, and its loop. It is imported here: no other process pays for it."""
    from transformers import AutoModelForCausalLM

    return by_generate(AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32))


def by_generate(model, **settings) -> Way:
    """A model of transformers with its own loop. settings: more of what its `generate` takes."""
    model.generation_config.eos_token_id = None  # a text that ends early would be measured short

    def way(prompt, new):
        ids = torch.tensor([prompt])
        how = {"attention_mask": torch.ones_like(ids), "max_new_tokens": new, "do_sample": False}
        return model.generate(ids, **how, **settings)[0, len(prompt) :].tolist()

    return way


def llama_cpp(path: Path) -> Way:
    """llama.cpp's server, in a thread of this process, whose CPU seconds hold it: one thread computes, and none waits
    busily."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.port = str(path), 1024, 1, 0  # any port that is free
    params.warmup, params.fit_params, params.verbosity = False, False, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)

    def way(prompt, new):
        how = {"n_predict": new, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
        answer = server.handle_completions({"prompt": prompt, **how})
        if answer["usage"]["completion_tokens"] != new:
            raise RuntimeError(f"llama.cpp wrote {answer['usage']}: expected {new} tokens")

    return way


@dataclass(frozen=True)
class Row:
    """One way after a prompt of `prompt` tokens.

    prefill, decode: tokens a CPU second, the median. prefill_to_peer, decode_to_peer: as multiples of transformers',
    the medians of the rounds' ratios. differing: new tokens that are not transformers', None where ids are not told.
    """

    prompt: int
    way: str
    prefill: float
    prefill_to_peer: float
    decode: float
    decode_to_peer: float
    differing: int | None


def measure(ways: dict[str, Way], text: Sequence[int], prompts: Sequence[int], new: int, rounds: int) -> list[Row]:
    """A row for each prompt, the first tokens of the text, and way; "transformers" must be among them."""
    written = {}

    def keeping(name, n, most):
        written[name, n, most] = ways[name](text[:n], most)

    calls = {
        (name, n, most): partial(keeping, name, n, most) for n in prompts for name in ways for most in (1, 1 + new)
    }
    seconds = cpu_seconds(calls, rounds)
    rows = []
    for n in prompts:
        first = {name: seconds[name, n, 1] for name in ways}
        more = {name: [b - a for a, b in zip(first[name], seconds[name, n, 1 + new], strict=True)] for name in ways}
        for name in ways:
            found, wanted = (written[each, n, 1 + new] for each in (name, "transformers"))
            rows.append(
                Row(
                    prompt=n,
                    way=name,
                    prefill=n / statistics.median(first[name]),
                    prefill_to_peer=median_ratio(first["transformers"], first[name]),
                    decode=new / statistics.median(more[name]),
                    decode_to_peer=median_ratio(more["transformers"], more[name]),
                    differing=None if found is None else sum(a != b for a, b in zip(found, wanted, strict=True)),
                )
            )
    return rows


def goals(loading: Loading, rows: Sequence[Row]) -> list[Goal]:
    """What is promised of ours: loading, the same tokens as transformers', and decoding faster than it."""
    mine = [row for row in rows if row.way == "ours"]
    promised = [Goal("CPU seconds to load the model", loading.model, GOAL_SECONDS)]
    if loading.peak is not None:
        promised.append(Goal("resident GB of a process that has loaded all", loading.peak / 1e9, GOAL_BYTES / 1e9))
    promised.append(Goal("tokens that are not transformers'", sum(row.differing for row in mine), 0))
    words = "decoding's speed as a multiple of transformers', prompt of"
    return promised + [Goal(f"{words} {row.prompt}", row.decode_to_peer, FASTER, at_least=True) for row in mine]


def show(rows: Sequence[Row]) -> None:
    """Print the rows as a table; each x column is a multiple of transformers'."""
    print_table(
        ["prompt", "way", "prefill/s", "x", "decode/s", "x", "other tokens"],
        [
            [
                str(row.prompt),
                row.way,
                f"{row.prefill:.0f}",
                f"{row.prefill_to_peer:.2f}",
                f"{row.decode:.1f}",
                f"{row.decode_to_peer:.2f}",
                "-" if row.differing is None else str(row.differing),
            ]
            for row in rows
        ],
    )


def main() -> int:
    """Measure and print everything; returns the exit status."""
    if not is_installed():
        print(f"bench_smollm2: the real model is not installed, nothing is measured: {INSTALL}")
        return 0
    loading, path = in_fresh_process(load), smollm2_file()
    ids = read_tokenizer(path).encode(texts()["letter"])
    ways = {"ours": ours(load_model(path)), "transformers": transformers(path), "llama.cpp, 4 bits": llama_cpp(path)}
    rows = measure(ways, ids, PROMPTS, NEW, ROUNDS)
    peak = "not measured here (it takes Linux)" if loading.peak is None else f"{loading.peak / 1e9:.2f} GB"
    print(f"Loading, CPU s: model {loading.model:.2f}, model and tokenizer {loading.both:.2f}; peak memory: {peak}")
    print(f"Tokens a CPU second, one thread, batch 1, {NEW} decoded")
    show(rows)
    return report(goals(loading, rows))


if __name__ == "__main__":
    sys.exit(main())
