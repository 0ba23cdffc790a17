"""What this lesson's sweeps must show, written before the seeds that judge were run; bounds are by other seeds' pilot.

    small, _ = stored(moe_sweep.SWEEP.results)
    real, _ = stored(real_moe_sweep.SWEEP.results)
    overload(small, task="small", arm="none", steps=600)       # how many even shares one expert has, by seed
    supports(small, real), against(small, real), limits(small, real), further(small, real)     # `Finding`s

A model's mixtures are judged together, by their worse layer: which of two layers is the uneven one is up to the seed.
"""

from collections.abc import Callable

from shared.finding import Finding

JUDGES = 10  # seeds from here up
PLAIN = {"n_experts": 8, "k": 1}


def by_seed(rows: list[dict], what: Callable[[dict], float], **job) -> list[float]:
    """A number for each seed that judges. job: n_experts is 8 and k is 1 where it is not said, and dose 0 of a small
    model. Raises ValueError where nothing such is stored, or a seed twice."""
    wanted = PLAIN | ({"dose": 0.0} if job.get("task") == "small" else {}) | job
    mine = [row for row in rows if row["seed"] >= JUDGES and wanted.items() <= row.items()]
    found = {row["seed"]: what(row) for row in mine}
    if not found or len(found) < len(mine):
        raise ValueError(f"{len(mine)} rows of {len(found)} seeds of {wanted}: which are stored?")
    return [found[seed] for seed in sorted(found)]


def layers(row: dict, name: str) -> list[float]:
    """A row's number of each layer; the real model's rows are of one."""
    return row[name] if isinstance(row[name], list) else [row[name]]


def overload(rows: list[dict], **job) -> list[float]:
    """How many even shares the fullest expert has, in the worse layer: 1 if even, E / k if the same k have all."""
    return by_seed(rows, lambda row: row["n_experts"] * max(layers(row, "largest")), **job)


def dead(rows: list[dict], **job) -> list[float]:
    """The share of all layers' experts that are dead."""
    return by_seed(rows, lambda row: sum(layers(row, "dead")) / len(layers(row, "dead")) / row["n_experts"], **job)


def mean(rows: list[dict], name: str, **job) -> list[float]:
    """Of a number that each layer has, the mean of the layers."""
    return by_seed(rows, lambda row: sum(layers(row, name)) / len(layers(row, name)), **job)


def more(rows: list[dict], arm: str, than: str, **job) -> list[float]:
    """By how much an arm's loss is higher than another's, seed by seed."""
    one, other = (by_seed(rows, lambda row: row["loss"], arm=name, **job) for name in (arm, than))
    return [a - b for a, b in zip(one, other, strict=True)]


def start(rows: list[dict], **job) -> list[float]:
    """`overload` before the first step, of the first batch."""

    def first(row):
        seen = row["largest_by_step"]
        return row["n_experts"] * max(layer[0] for layer in (seen if isinstance(seen[0], list) else [seen]))

    return by_seed(rows, first, **job)


def less(one: list[float], other: list[float]) -> list[float]:
    """The differences, seed by seed."""
    return [a - b for a, b in zip(one, other, strict=True)]


STEPS = (150, 600)
OVERLOAD = "how many even shares the fullest expert has"
REAL = {"centred": False, "arm": "none"}
UPCYCLED = {"task": "upcycle", "k": 2}
POSSIBLE = (1, 8)  # of eight experts, one for each token


def supports(small: list[dict], real: list[dict]) -> list[Finding]:
    """What must be so for "experts collapse without a penalty, and with one they do not" to hold anywhere."""
    found = []
    for steps in STEPS:
        for layer in (11, 20):
            what = f"real layer {layer}, top-1, {steps} steps"
            plain = overload(real, layer=layer, steps=steps, **REAL)
            evened = overload(real, layer=layer, steps=steps, **REAL | {"arm": "aux 0.1"})
            grown = less(plain, start(real, layer=layer, steps=steps, **REAL))
            found += [
                Finding(f"{what}, no balance: {OVERLOAD}", plain, at_least=3, possible=POSSIBLE),
                Finding(f"{what}, no balance: how many more than before training", grown, at_least=1, possible=(-7, 7)),
                Finding(f"{what}, auxiliary loss 0.1: {OVERLOAD}", evened, at_most=2, possible=POSSIBLE),
            ]
    dead_share = dead(real, layer=20, steps=150, **REAL)
    found.append(Finding("real layer 20, 150 steps: share of experts dead", dead_share, at_least=0.25, possible=(0, 1)))
    return found


def limits(small: list[dict], real: list[dict]) -> list[Finding]:
    """Where it stops being so."""
    found, when = [], "tokens have a direction in common in what the router is given"
    for steps in STEPS:
        for layer in (11, 20):
            centred = overload(real, layer=layer, steps=steps, centred=True, arm="none")
            words = f"real layer {layer}, {steps} steps, the mean taken from what the router is given: {OVERLOAD}"
            found.append(Finding(words, centred, at_most=3, when=when, possible=POSSIBLE))
        plain = dead(small, task="small", arm="none", steps=steps)
        words = f"small decoder from scratch, {steps} steps, no balance: share of experts dead"
        found.append(Finding(words, plain, at_most=0.15, when=when, possible=(0, 1)))
        evened = overload(small, task="small", arm="bias 0.01", dose=1.0, steps=steps)
        words = f"small decoder, a common direction added, {steps} steps, DeepSeek's bias: {OVERLOAD}"
        found.append(
            Finding(words, evened, at_most=3, when="nothing else evens the load, as a bias does", possible=POSSIBLE)
        )
    return found


def further(small: list[dict], real: list[dict]) -> list[Finding]:
    """What is said beside the verdict."""
    return [*_dosed(small), *_loss(small, real), *_upcycled(small), *_told(small)]


def _dosed(small: list[dict]) -> list[Finding]:
    """The intervention."""
    found = []
    for steps in STEPS:
        none, evened = (overload(small, task="small", arm=it, dose=1.0, steps=steps) for it in ("none", "aux 0.1"))
        what = f"small decoder, a common direction added, {steps} steps"
        found.append(Finding(f"{what}, no balance: {OVERLOAD}", none, at_least=3, possible=POSSIBLE))
        found.append(Finding(f"{what}, auxiliary loss 0.1: {OVERLOAD}", evened, at_most=2, possible=POSSIBLE))
    return found


def _loss(small: list[dict], real: list[dict]) -> list[Finding]:
    """Does evening the load pay, and what is a mixture worth? A loss that is level is within 0.03 nats."""
    found = []
    for steps in STEPS:
        here = {"task": "small", "steps": steps}
        pairs = [("aux 0.1", "none", 0.0), ("bias 0.01", "none", 0.0), ("aux 0.1", "none", 1.0)]
        for one, other, dose in pairs:
            what = f"small decoder, {steps} steps, dose {dose:g}: nats that {one} loses more than {other}"
            found.append(Finding(what, more(small, one, other, dose=dose, **here), at_least=-0.03, at_most=0.03))
        for dense in ("dense active", "dense total"):
            what = f"small decoder, {steps} steps: nats that top-1 without balance loses more than {dense}"
            found.append(Finding(what, more(small, "none", dense, **here), at_least=0))
        lost = more(real, "aux 0.1", "none", layer=20, centred=False, steps=steps)
        what = f"real layer 20, {steps} steps: share of the variance that aux 0.1 misses more than no balance"
        found.append(Finding(what, lost, at_least=0))
    strong = more(small, "aux 1", "aux 0.01", task="small", steps=150)
    return [*found, Finding("small decoder, 150 steps: nats that aux 1 loses more than aux 0.01", strong, at_least=0)]


def _upcycled(small: list[dict]) -> list[Finding]:
    """Copies of a trained layer: top-2, so that 4 even shares are the most."""
    found = []
    for rate, steps in UPCYCLED_RUNS:
        plain = overload(small, arm="none", rate=rate, steps=steps, **UPCYCLED)
        what = f"upcycled story model, rate {rate:g}, {steps} steps, no balance: {OVERLOAD}"
        found.append(Finding(what, plain, at_least=2.5, possible=(1, 4)))
    evened = overload(small, arm="aux 0.1", rate=1e-3, steps=600, **UPCYCLED)
    return [*found, Finding(f"the last with auxiliary loss 0.1: {OVERLOAD}", evened, at_most=1.5, possible=(1, 4))]


def _told(small: list[dict]) -> list[Finding]:
    """Balanced is not specialised: what the expert tells of the kind of document, nats, the layers' mean."""
    here = {"task": "small", "steps": 150}

    def nats(arm, name="domain"):
        return mean(small, name, arm=arm, **here)

    return [
        Finding("150 steps: nats that the expert tells of the kind, no balance", nats("none"), at_least=0.03),
        Finding(
            "and of these what the token alone does not tell",
            less(nats("none"), nats("none", "domain_by_token")),
            at_least=0,
        ),
        Finding("less with aux 1 than with no balance", less(nats("none"), nats("aux 1")), at_least=0.02),
        Finding("less with a hash, which is even, than with no balance", less(nats("none"), nats("hash")), at_least=0),
        Finding("more with a trained router than with a frozen one", less(nats("none"), nats("frozen")), at_least=0),
    ]


UPCYCLED_RUNS = [(3e-4, 150), (1e-3, 150), (3e-3, 150), (1e-3, 600)]
