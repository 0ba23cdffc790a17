"""The settings of a decoder, and what somebody else's file says of them: taken by name, or refused by name."""

from dataclasses import dataclass

REQUIRED = object()


@dataclass(frozen=True)
class Settings:
    """What a decoder is built with to hold the tensors. Raises ValueError for heads that do not fit each other.

    kind: the word in the file. context: the longest input, in tokens. norm: "layer" or "rms", with norm_eps inside the
    root. gated: the feed-forward has three matrices, proj(activation(gate(x)) * up(x)), else proj(activation(up(x))).
    activation: "gelu", "gelu_tanh" or "silu". rotary_base: queries and keys are rotated, number i of a head together
    with number i + d_head / 2; None: positions are a learned table. window: how many tokens one sees, itself among
    them; None: all before it. tied: the head is the embedding's matrix.
    """

    kind: str
    vocab_size: int
    context: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_hidden: int
    norm: str
    norm_eps: float
    gated: bool
    activation: str
    rotary_base: float | None
    window: int | None
    attention_bias: bool
    feed_forward_bias: bool
    tied: bool

    def __post_init__(self):
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"{self.n_heads} heads for queries, {self.n_kv_heads} for keys: expected a multiple")
        if self.rotary_base is not None and self.d_head % 2:
            raise ValueError(f"heads {self.d_head} wide are to be rotated in pairs: expected an even width")


class Config:
    """A file's settings by name, and where they come from, for messages.

    Every method raises ValueError for a setting that is missing and has no default, or is not what is asked for.
    """

    def __init__(self, values: dict, source: str):
        self.values, self.source, self.asked = values, source, set()

    def size(self, name: str, default: int | object = REQUIRED) -> int:
        """A whole number, at least 1. null means the default, where there is one."""
        found = self._take(name, default)
        if found is None and default is not REQUIRED:
            found = default
        if type(found) is not int or found < 1:
            raise self._wrong(name, found, "expected a whole number, at least 1")
        return found

    def size_or_none(self, name: str, default: int) -> int | None:
        """A whole number, at least 1; null is None, and not the default."""
        return None if self._take(name, default) is None else self.size(name, default)

    def sizes(self, names: dict[str, str]) -> dict[str, int]:
        """{our name: size} from {our name: theirs}."""
        return {ours: self.size(theirs) for ours, theirs in names.items()}

    def d_head(self, d_model: int, n_heads: int, name: str) -> int:
        """The width of a head, where it is given; else the heads share d_model."""
        if self.values.get(name) is None and d_model % n_heads:
            raise ValueError(f"{d_model} numbers do not divide into {n_heads} heads, in {self.source}")
        return self.size(name, d_model // n_heads)

    def number(self, name: str, default: float | object = REQUIRED) -> float:
        """A number above 0."""
        found = self._take(name, default)
        if type(found) not in (int, float) or not 0 < found < 1e38:
            raise self._wrong(name, found, "expected a number above 0")
        return float(found)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        found = self._take(name, default)
        if type(found) is not bool:
            raise self._wrong(name, found, "expected true or false")
        return found

    def one_of(self, name: str, meanings: dict[str, str], default: str) -> str:
        """What a word stands for."""
        found = self._take(name, default)
        if not isinstance(found, str) or found not in meanings:
            raise self._wrong(name, found, f"expected {' or '.join(map(repr, meanings))}")
        return meanings[found]

    def part(self, name: str) -> "Config":
        """The settings inside this one; none if it is not given or null."""
        found = self._take(name, {})
        if not isinstance(found, dict | None):
            raise self._wrong(name, found, "expected names with values")
        return Config(found or {}, f"{name} of {self.source}")

    def expect(self, allowed: dict[str, list]) -> None:
        """Each may only have one of the values beside it. The first is what it means where it is not given."""
        for name, values in allowed.items():
            found = self._take(name, values[0])
            if found not in values:
                raise self._wrong(name, found, f"only {' or '.join(map(repr, values))} is read here")

    def nothing_else(self) -> None:
        """Refuse the settings that were not asked for."""
        for name in sorted(self.values.keys() - self.asked):
            raise self._wrong(name, self.values[name], "this setting is not known here")

    def _take(self, name: str, default):
        self.asked.add(name)
        if name not in self.values and default is REQUIRED:
            raise ValueError(f"{self.source} does not say {name!r}")
        return self.values.get(name, default)

    def _wrong(self, name: str, found, wanted: str) -> ValueError:
        return ValueError(f"{name} is {found!r} in {self.source}: {wanted}")
