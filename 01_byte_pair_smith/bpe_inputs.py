"""What `bpe.py` refuses, in words: texts, merges and specials with which ids would be silently wrong."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from operator import index


def checked_text(text: str) -> str:
    """The text, if it is one that UTF-8 can write: lone surrogates stand for bytes inside `bpe.py` (see `spell`)."""
    if not isinstance(text, str):
        what = f"the text is of type {type(text).__name__}: expected a str"
        raise ValueError(f"{what}; of a file, what `shared.corpus.read` or pathlib's `read_text` gives")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        what = f"character {error.start} is {text[error.start]!r}, half of a surrogate pair"
        raise ValueError(f"{what}, which no UTF-8 text holds: mend how it was decoded") from error
    return text


def checked_merges(merges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The merges, if each is a pair of ids that exist before it, and none stands twice."""
    if not isinstance(merges, list | tuple):
        raise ValueError(f"merges are a {type(merges).__name__}: expected a list of pairs of ids")
    for rank, pair in enumerate(merges):
        fits = isinstance(pair, list | tuple) and len(pair) == 2
        if not fits or not all(type(i) is int and 0 <= i < 256 + rank for i in pair):
            raise ValueError(f"merge {rank} is {pair}: expected two ids from 0 to {255 + rank}, made before it")
    if twice := [pair for pair, count in Counter(map(tuple, merges)).items() if count > 1]:
        raise ValueError(f"the pair {twice[0]} stands twice among the merges: the second could never be used")
    return [(a, b) for a, b in merges]


def checked_specials(specials: list[str]) -> list[str]:
    """The specials, if they are different texts, none of them empty or "all"."""
    if not isinstance(specials, list | tuple) or len(set(specials)) != len(specials) or {"", "all"} & set(specials):
        raise ValueError(f'specials are {specials!r}: expected a list of different texts, none of them "" or "all"')
    return [checked_text(special) for special in specials]


def checked_names(names: Collection[str] | str, specials: Mapping[str, int]) -> list[str]:
    """The names of specials, one name, or "all", as a list of those that exist."""
    if not isinstance(names, Collection):
        raise ValueError(f'{names!r} are no special tokens: expected a list of them, or "all"')
    names = list(specials) if names == "all" else [names] if isinstance(names, str) else list(names)
    if unknown := [name for name in names if name not in specials]:
        raise ValueError(f"{unknown[0]!r} is no special token: there are {list(specials) or 'none'}")
    return names


def check_lacks(text: str, specials: Collection[str]) -> None:
    """The text holds none of the specials."""
    if found := [(text.find(special), special) for special in specials if special in text]:
        at, special = min(found)
        what = f"the text holds the special token {special!r}, at character {at}"
        raise ValueError(f"{what}: name it in `allowed`, or leave it out of `forbidden` to have it encoded as letters")


def checked_ids(ids: Iterable[int], n: int) -> list[int]:
    """The ids, if they are whole numbers from 0 to n - 1."""
    try:
        ids = list(map(index, ids))
    except TypeError as error:
        raise ValueError(f"{ids!r} are no ids: expected whole numbers") from error
    if wrong := [i for i in ids if not 0 <= i < n]:
        raise ValueError(f"{wrong[0]} is no id: expected 0 to {n - 1}")
    return ids
