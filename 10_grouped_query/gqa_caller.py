"""A program around gqa.py: the story model with fewer key heads, weights in others' layouts, a model of latents.

`convert` pools key heads and trains a little, `serve` answers prompts, as many side by side as there is memory for.
`unshared` writes weights for programs that know no sharing; `from_pairs` and `from_groups` read what others wrote.
`train` makes a small model of texts that repeat themselves; `go_on` serves it from its latents.
"""

from functools import partial
from itertools import count, islice

import gqa
import torch

from shared.rotary import no_positions
from shared.story_model import load_story_lm
from shared.tiny_lm import TinyLM
from shared.training import fit, initialise_by_fan_in
from shared.world import BASE
from shared.world.rows import rows
from shared.world.words import END, ID, decode, encode

KV_HEADS = 2  # that the story model's four become
STEPS, RATE, BATCH, LENGTH = 24, 2e-3, 4, 64  # of the training after that; tokens of a row
SMALL = 100, 1e-2  # steps and rate of the small model
MEMORY, LONGEST = 3 * 2**19, 128  # bytes for the keys and values of all texts; tokens that a text may come to
LONG, SHORT = gqa.attend_repeated, gqa.attend_grouped  # how a pass of several tokens attends, and one of a single token
MOST, STOP = 40, ID[END]  # words of an answer, and the one that ends it before
SCENE = "Once Ann Lake, a young pilot from Vorby, was in the school. Jane King, her mother, was in the barn."
WISHES = ["Soon Ann", "A hare was in the school. A grey pestle was", "Ann", "A hare was in", "Jane wanted", "Nobody"]
PROMPTS = [[STOP, *encode(f"{SCENE} {wish}")] for wish in WISHES]
LETTERS, PERIOD = 8, 6  # how many letters there are; a text says again what it said so many letters before


def attend(q, k, v, mask=None):
    """What each head has read, (B, H, T, d)."""
    return (LONG if q.shape[2] > 1 else SHORT)(q, k, v, mask)


def load():
    """The story model, its attention that of gqa.py."""
    story, attention = load_story_lm(), partial(gqa.GroupedAttention, attend=attend)
    sizes = (story.vocab_size, story.context, story.embedding.embedding_dim, len(story.blocks))
    model = TinyLM(*sizes, story.blocks[0].attention.n_heads, attention=attention, positions=no_positions)
    model.load_state_dict(story.state_dict())
    return model.eval()


@torch.enable_grad()
def convert(model):
    """The model with KV_HEADS key and value heads, trained for some steps, and its losses."""
    small, stream = gqa.pool_model(model, KV_HEADS), rows(LENGTH, 0, BASE)

    def batch():
        ids = torch.stack(list(islice(stream, BATCH)))  # (BATCH, LENGTH + 1)
        return ids[:, :-1], ids[:, 1:]

    return small, fit(small, batch, STEPS, RATE, label=None).loss


def at_once(model):
    """How many texts of LONGEST tokens there is MEMORY for."""
    layer = model.blocks[0].attention
    sizes = (LONGEST, len(model.blocks), layer.n_kv_heads, layer.d_head)
    return MEMORY // gqa.cache_bytes(*sizes, bytes_per_number=4)


@torch.inference_mode()
def serve(model, prompts):
    """How prompts go on by the likeliest word, up to the end or MOST words each."""
    answers, n = [], at_once(model)
    for i in range(0, len(prompts), n):
        words = batch(model, prompts[i : i + n])
        answers += [row[: row.index(STOP) + 1] if STOP in row else row for row in words]
    return answers


def batch(model, prompts):
    """MOST words to each of some prompts, side by side."""
    padding = [max(map(len, prompts)) - len(prompt) for prompt in prompts]
    ids = torch.tensor([[STOP] * n + prompt for n, prompt in zip(padding, prompts, strict=True)])
    cache, words = model.new_cache(len(prompts), LONGEST, torch.tensor(padding)), []
    if (held := cache.keys.nbytes + cache.values.nbytes) > MEMORY:
        raise MemoryError(f"{len(prompts)} texts take {held:,} bytes, there are {MEMORY:,}")
    for _ in range(MOST):
        ids = model(ids, cache, last=1).argmax(dim=-1)  # (B, 1)
        words.append(ids)
    return torch.cat(words, dim=1).tolist()


def unshared(matrix, n_heads, n_kv_heads, d_head):
    """The fused matrix, ((H + 2 K) d, C), with a key and a value head for each query head: (3 H d, C)."""
    q, k, v = matrix.unflatten(0, (-1, d_head)).split([n_heads, n_kv_heads, n_kv_heads])
    read = [gqa.kv_head_of(head, n_heads, n_kv_heads) for head in range(n_heads)]
    return torch.cat([q, k[read], v[read]]).flatten(0, 1)


def layer_of(config, q, k, v, proj):
    """An attention layer of these sizes and weights."""
    sizes = {"n_kv_heads": config["n_kv_heads"], "rotary_base": config["rope_theta"], "bias": False}
    layer = gqa.GroupedAttention(config["d_model"], config["n_heads"], **sizes, attend=attend)
    layer.load_state_dict({"qkv.weight": torch.cat([q, k, v]), "proj.weight": proj})
    return layer


def from_pairs(config, tensors):
    """A layer of files with a matrix each for q, k and v, in which pairs (0, 1), (2, 3) ... of a head turn: Meta's."""
    heads = {"wq": config["n_heads"], "wk": config["n_kv_heads"]}  # here numbers i and i + d / 2 turn together
    q, k = (tensors[name].unflatten(0, (n, -1, 2)).transpose(1, 2).flatten(0, 2) for name, n in heads.items())
    return layer_of(config, q, k, tensors["wv"], tensors["wo"])


def from_groups(config, tensors):
    """A layer of files that have, group after group, its query heads, its key and its value head: Falcon's."""
    K, G = config["n_kv_heads"], config["n_heads"] // config["n_kv_heads"]
    heads = tensors["query_key_value"].unflatten(0, (K, G + 2, -1))
    q, k, v = (part.flatten(0, 2) for part in heads.split([G, 1, 1], dim=1))
    return layer_of(config, q, k, v, tensors["dense"])


def texts(n, length, seed):
    """n texts, (n, length) ids: PERIOD letters by chance, and these again and again."""
    letters = torch.randint(LETTERS, (n, PERIOD), generator=torch.Generator().manual_seed(seed))
    return letters.repeat(1, -(-length // PERIOD))[:, :length]


def new_model(absorbed):
    """A small model with latent attention."""
    attention = partial(gqa.LatentAttention, d_latent=16, d_rotary=16, absorbed=absorbed)
    return TinyLM(LETTERS, 8 * PERIOD, 32, 1, 4, attention=attention, positions=no_positions)


@torch.enable_grad()
def train(seed=0):
    """A model that has learnt the texts, with keys and values made of the latents; and its losses."""
    torch.manual_seed(seed)
    model, seeds = new_model(absorbed=False), count(10_000 * seed)
    initialise_by_fan_in(model)

    def batch():
        ids = texts(16, 4 * PERIOD + 1, next(seeds))
        return ids[:, :-1], ids[:, 1:]

    return model, fit(model, batch, *SMALL, label=None).loss


@torch.inference_mode()
def go_on(model, ids, n):
    """How texts, (B, T), go on: (B, n). Latents alone are cached, and no keys are made of them."""
    served, letters = new_model(absorbed=True), []
    served.load_state_dict(model.state_dict())
    cache = served.new_cache(len(ids))
    for _ in range(n):
        ids = served(ids, cache, last=1)[:, -1].argmax(dim=-1, keepdim=True)  # (B, 1)
        letters.append(ids)
    return torch.cat(letters, dim=1)


if __name__ == "__main__":
    for wish, answer in zip(WISHES, serve(convert(load())[0], PROMPTS), strict=True):
        print(wish, "...", decode(answer).strip())
