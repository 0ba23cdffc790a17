"""What stands in the README about the story world: python -m shared.story_model --report"""

import argparse

import torch
from matplotlib import pyplot as plt

from shared.plotting import CONTROL, FLOOR, WORKING, use_style
from shared.story_model.checkpoint import WEIGHTS, load_story_lm, measure, record, tell
from shared.tiny_lm import TinyLM
from shared.world import (
    BASE,
    FACTS,
    HELD_OUT,
    MIXED,
    STORY,
    VOCABULARY,
    encode,
    floor,
    next_token_distribution,
    stories,
)
from shared.world.words import END, ID

WORLDS = {
    "STORY": (STORY, "stories, and nothing else"),
    "FACTS": (FACTS, "facts about 4,000 people, to be memorised"),
    "MIXED": (MIXED, "stories, facts, sums and code"),
    "BASE": (BASE, "stories with questions, facts, requests: what the story model learnt from"),
}
CUTS = (
    "She left the hammer in the harbour.",
    "and it was thankful. The sheep",
    "Emma fetched the curtain from the",
)
TARGETS = {"excess": 0.05, "consistent": 0.95}


def floors() -> str:
    """The worlds and their floors, as a Markdown table."""
    rows = [
        "| world | what it writes | floor, nats a token | nats a byte | tokens a document |",
        "|---|---|---|---|---|",
    ]
    for name, (config, what) in WORLDS.items():
        word, byte = floor(config), floor(config, "bytes")
        rows.append(f"| `{name}` | {what} | {word.nats:.3f} ± {word.error:.3f} | {byte.nats:.4f} | {word.length:.0f} |")
    return "\n".join(rows)


def sample() -> str:
    """A story and its nats: the first one of seed 0."""
    story = stories(1, seed=0, config=STORY)[0]
    return f"> {story.text.strip()}\n\n({story.nats:.1f} nats, {len(encode(story.text))} tokens.)"


def trained(found: dict) -> str:
    """What was measured of a story model, in sentences. found: as `record` or `measure` gives it."""
    return (
        f"On {found['rows']} held-out rows its loss is {found['loss']:.4f} nats a token and their floor "
        f"{found['floor']:.4f}; KL(true ‖ model) is {found['excess']:.4f} ± {found['excess_error']:.4f} "
        f"(goal: at most {TARGETS['excess']}). Of the sentences in {found['stories']} stories that it told at "
        f"temperature 1, {found['consistent']:.1%} are consistent (goal: at least {TARGETS['consistent']:.0%}) and "
        f"{found['grammatical']:.1%} grammatical; {found['flawless']:.0%} of the stories have no flaw at all."
    )


def moments() -> list[str]:
    """A held-out story cut off at three places."""
    text = stories(7, HELD_OUT + 8, BASE)[6].text
    return [text[: text.index(cut) + len(cut)] for cut in CUTS]


def picture(model: TinyLM, most: int = 9) -> plt.Figure:
    """The true distribution of the next word beside the model's, at three places of a story."""
    use_style()
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    for ax, text in zip(axes, moments(), strict=True):
        true, guess = next_token_distribution(text, BASE), model_distribution(model, text)
        words = sorted(guess, key=lambda word: -max(true.get(word, 0), guess[word]))[:most][::-1]
        places = range(len(words))
        ax.barh([at + 0.2 for at in places], [true.get(word, 0) for word in words], 0.38, color=CONTROL, label="true")
        ax.barh(
            [at - 0.2 for at in places], [guess[word] for word in words], 0.38, color=WORKING, label="model", hatch="//"
        )
        ax.set_yticks(places, words)
        ax.set(xlabel="probability")
        ax.set_title("… " + " ".join(text.split()[-6:]) + " …", fontsize=10)
    axes[0].legend(loc="lower right")
    return figure


def learning_curve(found: dict) -> plt.Figure:
    """How a story model came near the truth as it was trained. found: as `record` gives it."""
    use_style()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.2), layout="constrained")
    steps = [look["step"] for look in found["curve"]]
    for ax, name, title in (
        (left, "excess", "The loss comes within the goal of the floor"),
        (right, "consistent", "Consistency lags behind"),
    ):
        ax.plot(steps, [look[name] for look in found["curve"]], color=WORKING, marker="o", label="32 rows, 32 stories")
        ax.plot(steps[-1:], [found[name]], color=WORKING, marker="D", ms=9, ls="", label="at length, in the end")
        ax.axhline(TARGETS[name], color=FLOOR, linestyle="--", linewidth=1)
        ax.annotate("goal", (steps[0], TARGETS[name]), ha="left", va="bottom", color=FLOOR)
        ax.set(title=title, xlabel="steps", ylim=(0, 1.08 if name == "consistent" else None))
    left.set_ylabel("nats a token")
    right.set_ylabel("share of sentences")
    left.legend()
    return figure


def model_distribution(model: TinyLM, text: str) -> dict[str, float]:
    """The model's probability of each word after a text."""
    with torch.no_grad():
        probabilities = model(torch.tensor([[ID[END], *encode(text)]]))[0, -1].softmax(-1)
    return dict(zip(VOCABULARY, probabilities.tolist(), strict=True))


def main() -> None:
    """Print the report, measured anew here; write the picture if asked to."""
    parser = argparse.ArgumentParser(prog="python -m shared.world", description=__doc__)
    parser.add_argument("--report", action="store_true", help="print the floors, a story, and the model's figures")
    parser.add_argument("--pictures", action="store_true", help="draw the README's two pictures anew")
    given = parser.parse_args()
    if not (given.report or given.pictures):
        parser.print_help()
    if given.report:
        print(f"{len(VOCABULARY)} words\n\n{floors()}\n\n{sample()}\n")
        found = record()
        again = measure(load_story_lm(), found["rows"], found["stories"])
        print(f"The story model: {found['parameters']:,} parameters, {found['tokens']:,} tokens.\n{trained(again)}\n")
        print("It tells:\n\n> " + tell(load_story_lm(), "Once", 1, seed=1)[0])
    if given.pictures:
        picture(load_story_lm()).savefig(WEIGHTS.parent / "next_word.png", dpi=90)
        learning_curve(record()).savefig(WEIGHTS.parent / "learning_curve.png", dpi=90)
