"""What the sweep must show, written before any row of the seeds that judge was read; bounds are by seed 0, which tried
rates.

    rows, how = stored(instruct_sweep.SWEEP.results)
    share(rows, "answers", 400, "trained", "obeyed")     # by seed, the mean over the kinds
    supports(rows), against(rows), limits(rows)          # `Finding`s for the verdict
    further(rows)                                        # what is said beside it

"Base models mimic; Instruct models obey." Mimic means: what a model writes after a request is what the documents that
it was trained on go on with (`instruct_world.mimics`). Obey: a program finds the answer's form and its content right
(`instruct_world.scored`). The base has no chance in it (it is asked greedily), so it is one number for each way to ask.

Seed 0, 400 and 1,600 steps at the best rate: the tuned model obeys 71 and 80 % of trained kinds, 62 and 61 % of
combinations that were held out, none of the new kinds and no pair; tuned on answers of other requests of the same kind
18 and 20 %; a random model 21 and 26 %; on responses alone under 2 %.
"""

from collections.abc import Iterable, Mapping
from statistics import fmean

from instruct_measure import SETS
from instruct_training import FORM, JUDGES, STEPS

from shared.finding import Finding

Rows = Iterable[Mapping]
TUNED, RESPONSES, SCRATCH = "answers", "responses alone", "from scratch"


def by_seed(rows: Rows, arm: str, steps: int) -> list[Mapping]:
    """A row for each seed that judges. Raises ValueError where one is missing, or there twice."""
    wanted = {"arm": arm, "steps": steps}
    mine = [row for row in rows if row.get("seed") in JUDGES and wanted.items() <= row.items()]
    if sorted(row["seed"] for row in mine) != JUDGES:
        raise ValueError(f"{len(mine)} rows of {arm!r}, {steps} steps: expected one for each of seeds {JUDGES}")
    return sorted(mine, key=lambda row: row["seed"])


def share(rows: Rows, arm: str, steps: int, of: str, measure: str) -> list[float]:
    """By seed: a share, the mean over the kinds of a set."""
    return [fmean(row[f"{of} {measure}"]) for row in by_seed(rows, arm, steps)]


def of_kind(rows: Rows, arm: str, steps: int, of: str, kind: str) -> list[float]:
    """By seed: the share of one kind's requests that is obeyed."""
    return [row[f"{of} obeyed"][SETS[of].index(kind)] for row in by_seed(rows, arm, steps)]


def base(rows: Rows, of: str, measure: str) -> dict[str, float]:
    """The base's share for each way to ask it, the mean over the kinds of a set."""
    return {row["prompt"]: fmean(row[f"{of} {measure}"]) for row in rows if row["task"] == "base"}


def story_nats(rows: Rows, arm: str, steps: int) -> list[float]:
    """By seed: nats per token on documents of the base's kind, above the base's own."""
    rows = list(rows)
    before = next(row["story_nats"] for row in rows if row.get("prompt") == "plain")
    return [row["story_nats"] - before for row in by_seed(rows, arm, steps)]


def less(one: Iterable[float], other: Iterable[float]) -> list[float]:
    """One minus the other, seed by seed."""
    return [a - b for a, b in zip(one, other, strict=True)]


def supports(rows: Rows) -> list[Finding]:
    """What must be so for the claim to hold at all."""
    rows = list(rows)
    mimicked = min(base(rows, of, "mimics")["plain"] for of in SETS)
    obeyed = max(value for of in SETS for value in base(rows, of, "obeyed").values())
    found = [
        Finding("the base goes on as its documents do: least share of a set", mimicked, 0.9, possible=(0, 1)),
        Finding("the base obeys, in the best of eight ways to ask", obeyed, at_most=0.05, possible=(0, 1)),
    ]
    for steps in STEPS:
        tuned, shuffled = (share(rows, arm, steps, "trained", "obeyed") for arm in (TUNED, FORM))
        other = share(rows, TUNED, steps, "combination", "obeyed")
        mimics = share(rows, TUNED, steps, "trained", "mimics")
        found += [
            Finding(f"{steps:,} steps: tuned on answers, it obeys trained kinds", tuned, 0.5, possible=(0, 1)),
            Finding(f"{steps:,} steps: it obeys combinations that were held out", other, 0.4, possible=(0, 1)),
            Finding(f"{steps:,} steps: it mimics", mimics, at_most=0.05, possible=(0, 1)),
            Finding(f"{steps:,} steps: it obeys more than with answers shuffled", less(tuned, shuffled), 0.3),
        ]
    return found


def against(rows: Rows) -> list[Finding]:
    """What makes the claim false as worded."""
    rows, found = list(rows), []
    for steps in STEPS:
        tuned, alone = (fmean(share(rows, arm, steps, "trained", "obeyed")) for arm in (TUNED, RESPONSES))
        shots = max(base(rows, "trained", "obeyed").values())
        why = "the base, shown examples, obeys half as often as the tuned model"
        found.append(
            Finding(f"{steps:,} steps: what the base obeys at best, of what is", shots / tuned, 0.5, because=why)
        )
        why = "tuned on responses without their requests it obeys half as often"
        found.append(Finding(f"{steps:,} steps: responses alone, of what is", alone / tuned, 0.5, because=why))
    return found


def limits(rows: Rows) -> list[Finding]:
    """Where a tuned model does not obey: each with the condition that it sets."""
    rows, found = list(rows), []
    for steps in STEPS:
        kinds, pairs = (share(rows, TUNED, steps, of, "obeyed") for of in ("new kind", "pair"))
        when = "answers of that form were among those tuned on"
        found.append(Finding(f"{steps:,} steps: it obeys new kinds", kinds, at_most=0.1, when=when))
        when = "there is one request at a time"
        found.append(Finding(f"{steps:,} steps: it obeys two at once", pairs, at_most=0.1, when=when))
        bare = [fmean(row["wrong"]["plain"]["obeyed"]) for row in by_seed(rows, TUNED, steps)]
        right = [fmean(row["wrong"]["right"]["obeyed"]) for row in by_seed(rows, TUNED, steps)]
        when = "it is told that an answer is due"
        found.append(Finding(f"{steps:,} steps: obeyed less without the template", less(right, bare), 0.3, when=when))
        gap = less(
            share(rows, SCRATCH, steps, "combination", "obeyed"), share(rows, FORM, steps, "combination", "obeyed")
        )
        when = "the base brings what the answers need"
        what = f"{steps:,} steps: a random model, tuned, obeys held-out combinations more than with answers shuffled"
        found.append(Finding(what, gap, at_most=0.1, when=when))
    stops = share(rows, "no stop", STEPS[0], "trained", "stops")
    return [*found, Finding("400 steps: it stops, untrained to", stops, at_most=0.95, when="its stop was trained")]


def further(rows: Rows) -> list[Finding]:
    """What is said beside the verdict, and does not decide it."""
    rows, found = list(rows), []
    for steps in STEPS:
        obeys = {
            arm: share(rows, arm, steps, "trained", "obeyed")
            for arm in (TUNED, "prompts too", "answers, replay", "LoRA 16")
        }
        lost = {arm: story_nats(rows, arm, steps) for arm in obeys}
        found += [
            Finding(f"{steps:,} steps: form with answers shuffled", share(rows, FORM, steps, "trained", "form"), 0.8),
            Finding(f"{steps:,} steps: stories forgotten, nats", lost[TUNED], 0.1),
            Finding(f"{steps:,} steps: with a quarter of documents replayed", lost["answers, replay"], at_most=0.03),
            Finding(f"{steps:,} steps: LoRA 16 forgets less than all weights", less(lost[TUNED], lost["LoRA 16"]), 0),
            Finding(f"{steps:,} steps: loss on prompts forgets more", less(lost["prompts too"], lost[TUNED]), 0),
            Finding(f"{steps:,} steps: loss on prompts obeys less", less(obeys[TUNED], obeys["prompts too"]), 0),
            Finding(f"{steps:,} steps: LoRA 16 obeys less than all weights", less(obeys[TUNED], obeys["LoRA 16"]), 0),
            Finding(f"{steps:,} steps: replay obeys less", less(obeys[TUNED], obeys["answers, replay"]), 0),
        ]
    colour = less(
        of_kind(rows, TUNED, STEPS[1], "trained", "colour"), of_kind(rows, TUNED, STEPS[1], "combination", "colour")
    )
    found.append(Finding("1,600 steps: colours of objects asked for in tuning, less of others", colour, 0.3))
    for n in (64, 256):
        gap = less(
            share(rows, TUNED, STEPS[0], "trained", "obeyed"),
            share(rows, f"{n} requests", STEPS[0], "trained", "obeyed"),
        )
        found.append(Finding(f"400 steps: all requests new, more than {n} over and over", gap, 0.1))
    return found
