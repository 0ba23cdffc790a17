"""A small server around kv_cache.py: it goes on with stories that somebody began, by the likeliest word.

It answers in four ways: one request after another in one cache, several of different length together, a queue of
requests that share the pages of one scene, and by guesses that one pass checks. Each way says what the model says
without a cache. A fifth tells stories without an end, in a cache that forgets.
"""

from collections import deque

import kv_cache
import torch

from shared.story_model import load_story_lm
from shared.world.words import END, ID, decode, encode

CAPACITY, CHUNK = 128, 8  # columns of a cache; words of a prompt that one pass reads
PAGE, N_PAGES = 8, 40
AHEAD = 4  # words that are guessed
MOST, STOP = 40, ID[END]  # words of an answer, and the one that ends it before
SCENE = (
    "Once Ann Lake, a young pilot from Vorby, was in the school. Jane King, her mother, was in the barn. "
    "A hare was in the school. A grey pestle was in the barn. A yellow mirror was in the tower."
)
WISHES = [
    "Jane found the pestle in the barn. Nobody",
    "Soon Ann",
    "Ann wanted the mirror in the tower. The hare hurried to the tower. It found the mirror in the tower. "
    "The mirror was with the hare. In the end",
    "Ann wanted the mirror in the tower. She fetched the mirror from the tower. In",
    "Ann",
    "The hare fetched",
]


def load():
    """The story model, its attention run by `cached_step`."""
    return kv_cache.by_cached_step(load_story_lm())


def prompts():
    """Six stories that are begun, each a list of ids."""
    return [[STOP, *encode(f"{SCENE} {wish}")] for wish in WISHES]


def sizes(model):
    """Layers, key/value heads and their width."""
    attention = model.blocks[0].attention
    return len(model.blocks), attention.n_kv_heads, attention.d_head


def new_cache(model, rows, padding=None):
    """Room for rows of CAPACITY columns."""
    n_layers, n_kv_heads, d_head = sizes(model)
    return kv_cache.PreallocatedCache(n_layers, rows, n_kv_heads, CAPACITY, d_head, padding=padding)


@torch.inference_mode()
def read(model, tokens, cache):
    """Read tokens, (B, T), into the cache, CHUNK columns at a time; the likeliest next word of each row."""
    for chunk in tokens.split(CHUNK, dim=1):
        logits = model(chunk, cache, last=1)  # (B, 1, V)
    return logits[:, -1].argmax(dim=-1).tolist()


def ended(said):
    """Whether an answer is over."""
    return STOP in said or len(said) >= MOST


def session(model, prompts):
    """An answer to one prompt after another, all in one cache."""
    cache, answers = new_cache(model, 1), []
    for prompt in prompts:
        said = read(model, torch.tensor([prompt]), cache)
        while not ended(said):
            said += read(model, torch.tensor([said[-1:]]), cache)
        cache.step_back(cache.length)
        answers.append(said)
    return answers


def batch(model, prompts):
    """Answers to prompts of different length, side by side, padded on the left. A row that has ended leaves."""
    longest = max(len(prompt) for prompt in prompts)
    padding = [longest - len(prompt) for prompt in prompts]
    tokens = torch.tensor([[STOP] * n + prompt for n, prompt in zip(padding, prompts, strict=True)])
    cache = new_cache(model, len(prompts), padding=padding)
    answers, rows = [[] for _ in prompts], list(range(len(prompts)))
    while rows:
        words = read(model, tokens, cache)
        for row, word in zip(rows, words, strict=True):
            answers[row].append(word)
        going = [i for i, row in enumerate(rows) if not ended(answers[row])]
        if 0 < len(going) < len(rows):
            cache.keep(going)
        rows = [rows[i] for i in going]
        tokens = torch.tensor([[words[i]] for i in going])
    return answers


def serve(model, scene, endings):
    """Answers to requests that all begin with a scene, which is read once. Others wait until there are pages."""
    n_layers, n_kv_heads, d_head = sizes(model)
    pool = kv_cache.PagePool(n_layers, N_PAGES, PAGE, n_kv_heads, d_head)
    begun, most = kv_cache.Request(pool), -(-CAPACITY // PAGE)  # pages that a request may come to hold
    read(model, torch.tensor([scene]), kv_cache.PagedCache([begun]))
    answers, waiting, running = [[] for _ in endings], deque(range(len(endings))), {}
    while waiting or running:
        owed = sum(most - len(request.table) for request in running.values())
        if waiting and pool.free - owed >= most - len(scene) // PAGE:
            row = waiting.popleft()
            running[row] = begun.fork()
            answers[row] += read(model, torch.tensor([endings[row]]), kv_cache.PagedCache([running[row]]))
        else:
            cache = kv_cache.PagedCache(list(running.values()))
            words = read(model, torch.tensor([answers[row][-1:] for row in running]), cache)
            for row, word in zip(running, words, strict=True):
                answers[row].append(word)
        for row in [row for row in running if ended(answers[row])]:
            request = running.pop(row)
            request.step_back(request.length)
    return answers


def lookup(said):
    """A guess at the next words: up to AHEAD of those that followed where the last word stood before."""
    before = [i for i, word in enumerate(said[:-1]) if word == said[-1]]
    return said[before[-1] + 1 :][:AHEAD] if before else []


@torch.inference_mode()
def guessed(model, prompts):
    """Answers by speculation: a pass reads the last word and the guess behind it, and says what follows each."""
    answers = []
    for prompt in prompts:
        said, cache = list(prompt), new_cache(model, 1)
        read(model, torch.tensor([prompt[:-1]]), cache)
        while not ended(said[len(prompt) :]):
            guess = lookup(said)
            words = model(torch.tensor([[said[-1], *guess]]), cache)[0].argmax(dim=-1).tolist()
            stayed = next((i for i, word in enumerate(guess) if word != words[i]), len(guess))
            cache.step_back(len(guess) - stayed)
            said += words[: stayed + 1]
        said = said[len(prompt) :][:MOST]
        answers.append(said[: said.index(STOP) + 1] if STOP in said else said)
    return answers


def tell(model, prompt, most):
    """Many words, stories and their ends. When the cache is full, the oldest quarter of its columns is forgotten."""
    cache, tokens, said = new_cache(model, 1), torch.tensor([prompt]), []
    while len(said) < most:
        said += read(model, tokens, cache)
        tokens = torch.tensor([said[-1:]])
        if cache.length == cache.capacity:
            cache.evict(CAPACITY // 4)
    return said


if __name__ == "__main__":
    model = load()
    for wish, answer in zip(WISHES, session(model, prompts()), strict=True):
        print(wish, "...", decode(answer).strip())
