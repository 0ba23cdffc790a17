"""Glitch tokens of a real model: found by their embeddings, tried by asking for them.

    distances()[48047]                      # of a token's embedding from those of the control tokens
    copied([48047], "list")                 # {"p": [...], "rank": [...]} where the token is to be said once more

SmolLM2-135M-Instruct (4-bit weights) has 17 control tokens. The embeddings of eleven lie at one point, as those of
tokens do that stand in no training text: each step moves them all alike. That an ordinary token which lies there was
never trained is an inference: its training text is not at hand to count.

Source: Land and Bartolo 2024, "Fishing for Magikarp" (arXiv 2405.05417).
"""

import torch
from real_tokens import log_probabilities, model_and_tokenizer
from real_vocabulary import Ids, token_ids

TEMPLATES = {  # what stands before a token, again and again; the last: before the one that is to be said
    "twice": ("The word is:", "\nOnce more, the word is:"),
    "list": ("Items:", ",", ",", ","),
    "lines": ("a =", "\nb =", "\nc ="),
    "asked": ("<|im_start|>user\nSay it once more:", "<|im_end|>\n<|im_start|>assistant\nIt is:"),
}


def distances() -> torch.Tensor:
    """How far each token's embedding is from the median of those of the 17 control tokens, (vocabulary,)."""
    model, tokenizer = model_and_tokenizer()
    rows = model.embedding.weight
    return (rows - rows[list(tokenizer.specials.values())].median(dim=0).values).norm(dim=-1)


def norms() -> torch.Tensor:
    """The norms of the embeddings, (vocabulary,)."""
    return model_and_tokenizer()[0].embedding.weight.norm(dim=-1)


def nearest_ids(i: int, n: int, left_out: set[int]) -> Ids:
    """The n tokens whose ids are nearest to a token's, of those that begin with a space as it does or does not, and
    that have as many bytes, or two more or less. left_out: ids that are not wanted, besides its own."""
    vocab, sizes = model_and_tokenizer()[1].vocab, range(-2, 3)
    alike = [
        j
        for token, j in token_ids().items()
        if j != i
        and j not in left_out
        and len(token) - len(vocab[i]) in sizes
        and token[:1].isspace() == vocab[i][:1].isspace()
    ]
    return sorted(alike, key=lambda j: (abs(i - j), j))[:n]


def prompt_ids(i: int, template: str) -> Ids:
    """A template of TEMPLATES with a token in it, as ids, up to where the token is to be said again."""
    encode = model_and_tokenizer()[1].encode
    first, *others = (encode(part, allowed="all") for part in TEMPLATES[template])
    return [*first, *(j for part in others for j in (i, *part))]


def copied(ids: Ids, template: str) -> dict[str, list]:
    """Of each token: its probability where it is to be said again, and its rank there, 1 for the most likely."""
    rows = [prompt_ids(i, template) for i in ids]
    found = log_probabilities(rows, [*map(len, rows)])
    own = found[range(len(ids)), ids][:, None]
    return {"p": own[:, 0].exp().tolist(), "rank": ((found > own).sum(dim=1) + 1).tolist()}
