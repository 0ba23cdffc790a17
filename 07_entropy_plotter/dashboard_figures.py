"""The dashboard's pictures, each with a sentence that says what it shows, for those who do not see it.

Every function returns (figure, sentence).
"""

from collections import Counter

import plotly.graph_objects as go
import torch
from storyteller import Place, entropy

from shared.colors import BROKEN, CONTROL, FLOOR, WORKING
from shared.world import VOCABULARY

MARGINS = {"l": 10, "r": 10, "t": 40, "b": 10}
ENDS = (0.1, 0.15, 0.25, 0.4, 0.6, 1.01)  # of the axis of probability: few, so that two pictures compare
LEGEND = {"orientation": "h", "x": 0, "y": -0.25, "yanchor": "top"}  # under the axis' title


def name(i: int) -> str:
    """A word as it is shown; a sign in quotes."""
    return VOCABULARY[i] if VOCABULARY[i].isalnum() else quoted(i)


def quoted(i: int) -> str:
    """A word within a sentence."""
    return "the line's end" if VOCABULARY[i] == "\n" else f"“{VOCABULARY[i]}”"


def next_word(here: Place, taken: int | None, most: int = 10) -> tuple[go.Figure, str]:
    """The likeliest words before and after the rules and in truth; a word that was cut says by which rule."""
    height = torch.stack([here.model, here.after, *([] if here.true is None else [here.true.float()])]).amax(dim=0)
    best = height.topk(most).indices.tolist()
    best = [i for i in best if height[i] >= 5e-4]
    if taken is not None and taken not in best:
        best = [*best[: most - 1], taken]
    labels = [name(i) + (" ◀ told" if i == taken else "") for i in best]
    bars = [("model", here.model, FLOOR, "/"), ("after the rules", here.after, WORKING, "")]
    bars += [] if here.true is None else [("true", here.true, CONTROL, ".")]
    figure = go.Figure()
    for label, p, color, pattern in bars:
        cut = [f"cut by {here.cut_by[i]}" if p is here.after and i in here.cut_by else "" for i in best]
        figure.add_bar(
            x=[p[i].item() for i in best],
            y=labels,
            orientation="h",
            name=label,
            marker={"color": color, "pattern": {"shape": pattern}},
            text=[why or f"{p[i].item():.3f}" for i, why in zip(best, cut, strict=True)],
            textposition="outside",
            cliponaxis=False,
        )
    figure.update_yaxes(autorange="reversed")
    end = next(end for end in ENDS if end >= height.max())
    figure.update_xaxes(title="probability", range=[0, 1.15 * end])
    figure.update_layout(title="The next word", barmode="group", height=160 + 48 * max(2, len(best)))
    figure.update_layout(margin=MARGINS | {"t": 80}, legend=LEGEND | {"y": 1, "yanchor": "bottom"})
    top = ", ".join(f"{quoted(i)} {here.model[i]:.1%} → {here.after[i]:.1%}" for i in best[:3])
    true = "" if here.true is None else f" In truth {quoted(here.true.argmax().item())} leads, {here.true.max():.1%}."
    told = ""
    if taken is not None:
        told = f" Told was {quoted(taken)}: surprisal {-here.model[taken].log().item():.2f} nats."
    return figure, f"Model → after the rules: {top}.{what_was_cut(here)}{true}{told}"


def what_was_cut(here: Place, most: int = 3) -> str:
    """What the rules cut: how many words and how much of the model's probability, by which rule, and the likeliest."""
    if not here.cut_by:
        return " Nothing is cut."
    by_rule = ", ".join(f"{rule} {n}" for rule, n in Counter(here.cut_by.values()).items())
    cut = torch.tensor(list(here.cut_by))
    likeliest = cut[here.model[cut].topk(min(most, len(cut))).indices].tolist()
    named = ", ".join(f"{quoted(i)} {here.model[i]:.1%}" for i in likeliest)
    return (
        f" Cut: {len(here.cut_by)} of {len(VOCABULARY)} words ({by_rule}), {here.lost:.1%} of the model's probability;"
        f" the likeliest of them: {named}."
    )


def entropy_over_heat(
    temperatures: list[float], alone: list[float], ruled: list[float] | None, T: float, here: Place
) -> tuple[go.Figure, str]:
    """H over T by the temperature alone, and with all the rules if there are others; where T stands, and the truth."""
    figure = go.Figure()
    figure.add_scatter(x=temperatures, y=alone, name="temperature alone", line={"color": FLOOR, "dash": "dash"})
    if ruled:
        figure.add_scatter(x=temperatures, y=ruled, name="with all your rules", line={"color": WORKING})
    now = entropy(here.after)
    figure.add_scatter(
        x=[T],
        y=[now],
        name="now",
        mode="markers+text",
        marker={"size": 12, "color": BROKEN},
        text=[f"{now:.2f}"],
        textposition="top left" if T > 2.5 else "top right" if T < 0.5 else "top center",
    )
    if here.true is not None:
        figure.add_hline(entropy(here.true), line={"color": CONTROL, "dash": "dot"}, annotation_text="true")
    figure.update_xaxes(title="temperature", range=[-0.1, 3.1])
    figure.update_yaxes(title="nats", rangemode="tozero")
    figure.update_layout(title="Entropy over temperature", height=320, margin=MARGINS, legend=LEGEND)
    true = "" if here.true is None else f", in truth {entropy(here.true):.2f}"
    return figure, f"Entropy now {now:.2f} nats at T = {T:g}; the model's own is {entropy(here.model):.2f}{true}."


def along(rows: list[dict], at: int) -> tuple[go.Figure, str]:
    """Entropy at each word, the model's and the true one, with the surprisal of the word that came. rows: `table`'s."""
    places, words = [row["at"] for row in rows], [row["word"] for row in rows]
    figure = go.Figure()
    for key, label, style in (
        ("entropy_true", "entropy, true", {"color": CONTROL, "width": 6}),  # broad and pale, under the others
        ("entropy_model", "entropy, model", {"color": FLOOR, "dash": "dash"}),
        ("entropy_after", "entropy, after the rules", {"color": WORKING, "width": 1.5}),
    ):
        pale = 0.4 if key == "entropy_true" else 1
        figure.add_scatter(x=places, y=[row[key] for row in rows], name=label, line=style, text=words, opacity=pale)
    surprisals = [row["surprisal"] for row in rows]
    figure.add_scatter(
        x=places,
        y=surprisals,
        name="surprisal of the word",
        mode="markers",
        marker={"color": BROKEN, "size": 5},
        text=words,
    )
    figure.add_vline(at, line={"color": FLOOR, "width": 1})
    figure.update_xaxes(title="word")
    figure.update_yaxes(title="nats", rangemode="tozero")
    figure.update_layout(title="Along the story", height=320, margin=MARGINS, legend=LEGEND)
    strangest = max(rows, key=lambda row: row["surprisal"])
    mean = sum(surprisals) / len(rows)
    return figure, (
        f"{len(rows)} words, mean surprisal {mean:.2f} nats; the most surprising is {strangest['word']!r}, "
        f"word {strangest['at']}, {strangest['surprisal']:.1f} nats."
    )


def frontier(tried: list[dict]) -> tuple[go.Figure, str]:
    """Share of accepted stories against different words, a point for each setting that was tried.

    tried: {"name", "accepted", "of", "words"} each; the first is the world itself."""
    figure = go.Figure()
    for i, point in enumerate(tried):
        share = point["accepted"] / point["of"]
        low, high = wilson(point["accepted"], point["of"])
        figure.add_scatter(
            x=[point["words"]],
            y=[share],
            name=point["name"],
            mode="markers+text",
            text=[str(i) if i else "world"],
            textposition="middle right",
            marker={"color": WORKING if i else CONTROL, "size": 11, "symbol": "circle" if i else "diamond"},
            error_y={"array": [high - share], "arrayminus": [share - low], "thickness": 1},
        )
    figure.update_xaxes(title="different words")
    figure.update_yaxes(title="share accepted", range=[-0.05, 1.15], tickformat=".0%")
    figure.update_layout(title="Quality against variety", height=380, margin=MARGINS, legend=LEGEND)
    parts = [f"{p['name']}: {p['accepted']} of {p['of']} accepted, {p['words']} different words" for p in tried]
    return figure, "; ".join(parts) + ". Bars: 95 % (Wilson)."


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of a share, hits of n (Wilson 1927)."""
    share, more = hits / n, z * z / n
    middle = (share + more / 2) / (1 + more)
    half = z / (1 + more) * (share * (1 - share) / n + more / (4 * n)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
