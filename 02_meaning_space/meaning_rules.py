"""The rules of lesson 02, written after trial runs (seed 0; sample 0 and the first list on the real model) and before
those that judge. Each takes the stored rows and gives findings.

"One-hot vectors are useless" is tried by a task in which one may use anything: which topic is a paragraph from? Its
words as a bag of one-hot vectors against the mean of their trained vectors, by few and by many labels, at three widths.
"Cosine is king" is tried against the dot product and against Euclid's distance, in vectors of ours and in a real model.
"""

from shared.finding import Finding

JUDGES = (1, 2, 3)
LENGTHS = (120, 480)
FEW, MANY = 32, 448


def shares(rows: list[dict], name: str, **job) -> list[float]:
    """A score of the runs of an arm, by seed. Raises ValueError if there are none."""
    some = [row for row in rows if all(row.get(key) == value for key, value in job.items()) and row["seed"] in JUDGES]
    if not some:
        raise ValueError(f"no stored run has {job}")
    return [row["shares"][name] for row in sorted(some, key=lambda row: row["seed"])]


def more(rows: list[dict], name: str, one: dict, other: dict) -> list[float]:
    """By how much one arm's score is above another's, seed by seed."""
    return [a - b for a, b in zip(shares(rows, name, **one), shares(rows, name, **other), strict=True)]


def trained(d: int, steps: int) -> dict:
    """The documentation's trained vectors."""
    return {"text": "docs", "arm": "trained", "d": d, "steps": steps}


BAG = {"text": "docs", "arm": "bag"}


def of_real(rows: list[dict], one: str, other: str) -> list[float]:
    """By how much a measure finds a token's own family more often than another, by sample; sample 0 does not judge."""
    families = [row["found"] for row in rows if row["part"] == "family" and row["of"] > 0]
    return [found[one][0] - found[other][0] for found in families]


def supports(rows: list[dict], real: list[dict], chance: float) -> list[Finding]:
    """For the claim. chance: of a kind."""
    found = []
    for steps in LENGTHS:
        arm = {"text": "world", "arm": "trained", "d": 24, "steps": steps, "size": 9000, "shuffled": None}
        known = [share - chance for share in shares(rows, "kinds", **arm)]
        found.append(Finding(f"world, {steps} steps: kinds known, trained minus one-hot", known, at_least=0.5))
    for steps in LENGTHS:
        gained = more(rows, f"topics by {FEW}", trained(300, steps), BAG)
        what = f"{FEW} labels, {steps} steps: topics told, mean of trained (300) minus bag"
        found.append(Finding(what, gained, at_least=0.02))
    for steps in LENGTHS:
        arm = trained(24, steps)
        pairs = zip(shares(rows, "own list, cosine", **arm), shares(rows, "own list, dot product", **arm), strict=True)
        what = f"docs, {steps} steps: own list nearest, cosine minus dot product"
        found.append(Finding(what, [a - b for a, b in pairs], at_least=0.1))
    gained = of_real(real, "raw, cosine", "raw, dot product")
    return [*found, Finding("SmolLM2: own family nearest, cosine minus dot product", gained, at_least=0.4)]


def against(rows: list[dict], real: list[dict]) -> list[Finding]:
    """What makes it false as worded."""
    found = []
    for d, least in ((24, 0.05), (100, 0.0)):
        for steps in LENGTHS:
            lost = more(rows, f"topics by {MANY}", BAG, trained(d, steps))
            what = f"{MANY} labels, {steps} steps: topics told, bag of one-hots minus mean of trained ({d})"
            because = f"by {MANY} labels a bag of one-hots beats {d} trained numbers, {steps} steps"
            found.append(Finding(what, lost, at_least=least, because=because))
    gained = of_real(real, "raw, cosine", "raw, Euclid")
    because = "in SmolLM2's embedding Euclid's distance finds as many families as the cosine"
    what = "SmolLM2: own family nearest, cosine minus Euclid"
    return [*found, Finding(what, gained, at_most=0.05, because=because)]


def limits(rows: list[dict], real: list[dict]) -> list[Finding]:
    """Where it stops being true."""
    found = []
    for steps in LENGTHS:
        arm = trained(24, steps)
        pairs = zip(shares(rows, "own list, rescaled 1", **arm), shares(rows, "own list, cosine", **arm), strict=True)
        what = f"docs, {steps} steps: own list nearest, the same model rescaled by e^z, over as trained"
        when = "the coordinates are those that training left"
        found.append(Finding(what, [a / b for a, b in pairs], at_most=0.75, when=when))
    (rating,) = (row["found"] for row in real if row["part"] == "rating" and row["of"] == "_later")
    what = "SmolLM2: rank correlation with likeness, first component off minus as it is, 5th percentile"
    when = "the direction that all vectors share is taken off"
    return [*found, Finding(what, rating["first component off, cosine"][2], at_least=0.0, when=when)]
