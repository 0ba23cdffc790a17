"""The faults of lesson 16: what ails each patient of its clinic, and its answer. Reading on spoils it.

Kinds: a line of the helper, of its caller, or a setting; two at once; nothing at all; and faults that pass every check,
each with the property that catches it.
"""

import contextlib
import itertools

import numpy as np
import scaling_evidence as evidence
import scaling_source as source

from shared.clinic import Change, Fault


@contextlib.contextmanager
def _with(caller, **settings):
    """Within it, the caller has other settings."""
    usual = {name: getattr(caller, name) for name in settings}
    vars(caller).update(settings)
    try:
        yield
    finally:
        vars(caller).update(usual)


def _sizes_are_without_the_embedding(helper, caller):
    """N is what a model has besides its embedding."""
    for width in (16, 48, 320):
        if (found := caller.size(width)) != (wanted := source.parameters(width)):
            return f"width {width}: N is {found:,}, without its embedding a model has {wanted:,}"


def _costs_are_those_of_the_models(helper, caller):
    """FLOPs and tokens of a run are those of its rows."""
    for width, steps in ((32, 10), (320, 70)):
        read = steps * caller.BATCH * caller.CONTEXT
        if caller.tokens(steps) != read:
            return (
                f"{steps} steps of {caller.BATCH} rows of {caller.CONTEXT}: {caller.tokens(steps)} tokens, not {read}"
            )
        found, wanted = caller.flops(width, steps), read * source.operations(width, caller.CONTEXT)
        if abs(found / wanted - 1) > 1e-9:  # the same products in another order
            return f"width {width}, {steps} steps: {found:.6g} FLOPs, counted by hand {wanted:.6g}"


def _costs_and_sizes(helper, caller):
    return _costs_are_those_of_the_models(helper, caller) or _sizes_are_without_the_embedding(helper, caller)


def _far_out_the_law_of_compute_keeps_its_floor(helper, caller):
    """With a thousand times the largest budget the loss is not below the floor, and within 5 % of it."""
    rows = caller.sweep()
    far = 1e3 * float(caller.frontier(rows)[0].max())
    found = float(caller.law_of_compute(rows)(far))
    if not source.FLOOR * 0.95 < found < source.FLOOR * 1.1:
        return f"{far:.2g} FLOPs: the law of compute foretells {found:.3f}, the floor is {source.FLOOR}"


def _a_larger_run_is_foretold(helper, caller):
    """Within 2 %: chance moves a run by 0.4 %, and the law of 90 runs by as much there."""
    with _with(caller, LARGE=(640, 0, 51200)):
        found, wanted = float(caller.foretold(caller.sweep())), source.measured(*caller.LARGE, (20, 96))
    if abs(found / wanted - 1) > 0.02:
        return f"width 640, 51200 steps: foretold {found:.3f}, found {wanted:.3f}"


def _the_rate_falls_to_its_end(helper, caller):
    """From step to step, whatever the length; half of it is left in the middle, and nearly none at the end."""
    for steps in (50, 120):
        _, rates = caller.train(steps)
        if len(rates) != steps or any(later >= rate for rate, later in itertools.pairwise(rates)):
            i = next((i for i in range(1, len(rates)) if rates[i] >= rates[i - 1]), 0)
            return f"{steps} steps: the rate does not fall at step {i + 1}, {rates[i - 1]:.4g} and {rates[i]:.4g}"
        if not (rates[-1] < 0.01 * rates[0] and abs(rates[steps // 2] / rates[0] - 0.5) < 0.01):
            told = f"{steps} steps: the rate is {rates[0]:.4g}, {rates[steps // 2]:.4g} in the middle"
            return f"{told}, {rates[-1]:.4g} at the end"


def _each_length_is_a_training_of_its_own(helper, caller):
    """What a curve says of a length is what a training of that length ends with."""
    with _with(caller, LENGTHS=(50, 100), SEEDS=(4,)):
        found = caller.curve()
        for length, mean in zip(caller.LENGTHS, found, strict=True):
            wanted = np.mean([caller.train(length, seed)[0][length] for seed in caller.SEEDS])
            if abs(mean - wanted) > 1e-9:  # the same numbers
                return f"{length} steps: the curve says {mean:.4f}, trainings of {length} steps end at {wanted:.4f}"


def _annealed(helper, caller):
    return _the_rate_falls_to_its_end(helper, caller) or _each_length_is_a_training_of_its_own(helper, caller)


def _a_mean_is_of_one_width_and_length(helper, caller):
    """Each cell of the table of means is that of its own runs."""
    rows = caller.sweep()
    table = caller.means(rows)
    for i, width in enumerate(caller.WIDTHS):
        for j, steps in enumerate(caller.STEPS):
            of = [row["loss"] for row in rows if (row["width"], row["steps"]) == (width, steps)]
            if abs(table[i, j] - np.mean(of)) > 1e-9:  # the same numbers
                return f"width {width}, {steps} steps: mean {table[i, j]:.4f}, of its runs {np.mean(of):.4f}"


def _a_run_is_counted_once(helper, caller):
    """A sweep that ended early and went on has the rows of one that did not."""
    whole = caller.sweep()
    for stop in (0, 41, len(whole)):
        if (rows := caller.sweep(whole[:stop])) != whole:
            return f"ended after {stop} of {len(whole)} runs: {len(rows)} rows when it has gone on"


def _a_sample_is_of_what_one_chance_drew(helper, caller):
    """Each group that is drawn has all runs of a width and a seed, and no others."""
    seen, usual = [], helper.bootstrap
    helper.bootstrap = lambda groups, *rest, **more: seen.append(groups) or usual(groups, *rest, **more)
    try:
        caller.spread(caller.sweep(), draws=2)
    finally:
        helper.bootstrap = usual
    wanted = len(caller.WIDTHS) * len(set(caller.SEEDS))
    if len(seen[0]) != wanted:
        return f"{len(seen[0])} groups are drawn from, and there are {wanted} pairs of a width and a seed"


def _seeds_differ(helper, caller):
    """Two seeds have two losses, everything else being equal."""
    for width, steps in ((32, 200), (320, 6400)):
        found = [caller.run(width, seed, steps)["loss"] for seed in (0, 1, 2)]
        if len(set(found)) < 3:
            return f"width {width}, {steps} steps, seeds 0 to 2: losses {found}"


FAULTS = [
    Fault(
        name="a short training falls along the longest one's cosine: it ends at a high rate",
        changes=[
            Change(
                "scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share(step, steps))",
                "scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share(step, max(LENGTHS)))",
                in_caller=True,
            )
        ],
        symptom="Short trainings end poorly, and longer ones gain more than they can.",
        hints=["What is the learning rate at the last step of each training?", "On what does a cosine's end depend?"],
        seen_in="paiml/entrenar#277: a cosine whose steps were not those of the run; fixed there. Hoffmann et al. 2022 "
        "name it as what misled Kaplan et al.",
        evidence=evidence.trained,
        holds=_the_rate_falls_to_its_end,
    ),
    Fault(
        name="the fit's objective is a mean, and not over DELTA squared: it is so small that the search ends early",
        changes=[
            Change(
                """
                lambda some: objective(whole(some), log_x, log_loss, delta) / DELTA**2,
                start[free],
                jac=lambda some: gradient(whole(some), log_x, log_loss, delta)[free] / DELTA**2,
                """,
                """
                lambda some: objective(whole(some), log_x, log_loss, delta) / len(log_loss),
                start[free],
                jac=lambda some: gradient(whole(some), log_x, log_loss, delta)[free] / len(log_loss),
                """,
            )
        ],
        symptom="By the fit's own measure the law that it finds is not the best one.",
        hints=["How small is the objective where a search ends, and how small could it be?", "When does a search end?"],
        seen_in="marin-community/marin#749: a search that ended early because its objective was small; changed there. "
        "Besiroglu et al. 2024 found it in Chinchilla's fit.",
        evidence=evidence.searched,
        example=True,
    ),
    Fault(
        name="tokens are steps times rows: a row's length is forgotten",
        changes=[Change("return steps * BATCH * CONTEXT", "return steps * BATCH", in_caller=True)],
        symptom="The budget that was planned with this program was used up long before the training ended.",
        hints=["What does a run of known length cost?", "What is read in one step?"],
        seen_in="facebookresearch/DiT#14 is a cousin: FLOPs that were off by a factor; explained there.",
        evidence=evidence.both_costs,
        holds=_costs_are_those_of_the_models,
    ),
    Fault(
        name="nothing: the patient is healthy. Over one decade three forms of curves fit alike; they differ far out",
        changes=[],
        symptom="Three curves fit the same runs about equally well, and contradict each other.",
        hints=["Where do they differ?", "What would a run tell that is a hundred times as large?"],
        seen_in="no thread: planted because a good fit is not a good forecast.",
        evidence=evidence.decade,
    ),
    Fault(
        name="the embedding is in N: narrow models look larger than they are",
        changes=[Change("return counted.total - counted.embedding", "return counted.total", in_caller=True)],
        symptom="A larger model is better than the law says.",
        hints=["Which models are off, and in which direction?", "Of what is a narrow model made?"],
        seen_in="formll/resolving-scaling-law-discrepancies#1: what of the vocabulary is counted; discussed there.",
        evidence=evidence.law,
        holds=_sizes_are_without_the_embedding,
    ),
    Fault(
        name="the look-up of the embedding is counted as a product, beside the head",
        changes=[
            Change(
                "matrices = count_parameters(shape).blocks - norms + shape.vocab_size * d",
                "matrices = count_parameters(shape).total - norms + shape.vocab_size * d",
            )
        ],
        symptom="Training a narrow model costs much more than it should.",
        hints=["By how much are the widths off?", "Which matrices are multiplied by, and which are read from?"],
        seen_in="tenstorrent/tt-metal#50114 and pytorch/torchtitan#452: an embedding counted as FLOPs; fixed in the "
        "first.",
        evidence=evidence.counted,
    ),
    Fault(
        name="the fit makes squares of losses small, not Huber's of log-losses: a run that went wrong pulls hard, and "
        "large losses count most",
        changes=[
            Change(
                """
                lambda some: objective(whole(some), log_x, log_loss, delta) / DELTA**2,
                start[free],
                jac=lambda some: gradient(whole(some), log_x, log_loss, delta)[free] / DELTA**2,
                """,
                """
                lambda some: np.sum((np.exp(log_loss) * np.expm1(residuals(whole(some), log_x, log_loss))) ** 2),
                start[free],
                """,
            )
        ],
        symptom="The runs are good, all but one. The law is not.",
        hints=["Which runs does the law pass by, and which not?", "How strongly does each run pull?"],
        seen_in="no thread: planted because a fit of losses is the first that comes to mind.",
        evidence=evidence.law,
    ),
    Fault(
        name="the schedule counts parts of a step: the rate has fallen after half of the steps, and rises again",
        changes=[
            Change(
                "scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share(step, steps))",
                "scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share(step * PARTS, steps))",
                in_caller=True,
            )
        ],
        symptom="Trainings end worse than they were in their middle.",
        hints=["What is the learning rate in the middle of a training?", "What does the schedule count?"],
        seen_in="Lightning-AI/pytorch-lightning#1476 and huggingface/accelerate#999: a schedule that went on with each "
        "batch of an accumulated step; fixed there.",
        evidence=evidence.trained,
        holds=_the_rate_falls_to_its_end,
    ),
    Fault(
        name="the optimum's exponents are swapped: the size grows as the tokens should",
        changes=[
            Change(
                "n = (alpha * a / (beta * b)) ** (1 / (alpha + beta)) * (flops / per_token) ** (beta / (alpha + beta))",
                """
                n = (alpha * a / (beta * b)) ** (1 / (alpha + beta)) * (flops / per_token) ** (alpha / (alpha + beta))
                """,
            )
        ],
        symptom="The best size by the law and the best size by runs grow apart.",
        hints=["By which factor are they apart at each budget?", "If more tokens help little, what should grow?"],
        seen_in="no thread: planted because the exponent of the size is the one of the tokens.",
        evidence=evidence.budgets,
    ),
    Fault(
        name="the curve is a power law without a floor: it falls for ever",
        changes=[
            Change(
                "return scaling.fit(losses, budgets)", "return scaling.fit(losses, budgets, floor=0.0)", in_caller=True
            )
        ],
        symptom="The more compute a run takes, the further its loss is from the forecast.",
        hints=["Where are the losses above the curve, and where below?", "To what does each form come at the end?"],
        seen_in="no thread: planted because many fits of scaling laws leave the floor out.",
        evidence=evidence.compute,
        holds=_far_out_the_law_of_compute_keeps_its_floor,
    ),
    Fault(
        name="a row's key is in another order where it is looked up: runs that were done are done again, and counted "
        "twice",
        changes=[
            Change(
                'done = {(row["width"], row["seed"], row["steps"]) for row in rows}',
                'done = {(row["seed"], row["width"], row["steps"]) for row in rows}',
                in_caller=True,
            )
        ],
        symptom="A sweep that went on took as long as a new one.",
        hints=["How many rows should there be?", "By what is a run known that has been done?"],
        seen_in="no thread: planted because a sweep that goes on is seldom compared with one in one piece.",
        evidence=evidence.resumed,
        holds=_a_run_is_counted_once,
    ),
    Fault(
        name="of attention's two products one is counted",
        changes=[
            Change(
                "return 2.0 * matrices + shape.n_layers * 4.0 * context * d",
                "return 2.0 * matrices + shape.n_layers * 2.0 * context * d",
            )
        ],
        symptom="The training time that was planned with this program sufficed for one data set, and not for the next.",
        hints=["What does the count's error depend on?", "What is computed with the scores?"],
        seen_in="pytorch/torchtitan#4366: one of attention's two products was counted; fixed there.",
        evidence=evidence.counted,
    ),
    Fault(
        name="a checkpoint of the longest training stands for a shorter one: its rate has not fallen",
        changes=[
            Change(
                "return np.array([np.mean([train(steps, seed)[0][steps] for seed in SEEDS]) for steps in LENGTHS])",
                """
                above = [train(max(LENGTHS), seed)[0] for seed in SEEDS]
                return np.array([np.mean([each[steps] for each in above]) for steps in LENGTHS])
                """,
                in_caller=True,
            )
        ],
        symptom="The curve of the loss over tokens falls late, and then steeply.",
        hints=["What does a training of 100 steps reach, if it is run alone?", "From which training is each number?"],
        seen_in="no thread of this: planted because a long training's log looks like many short trainings.",
        evidence=evidence.trained,
        holds=_each_length_is_a_training_of_its_own,
    ),
    Fault(
        name="seeds and widths are mixed up where the losses are put in a table: a mean is of several widths",
        changes=[
            Change(
                "return loss.reshape(len(WIDTHS), len(SEEDS), len(STEPS)).mean(axis=1)",
                "return loss.reshape(len(SEEDS), len(WIDTHS), len(STEPS)).mean(axis=0)",
                in_caller=True,
            )
        ],
        symptom="The best width for a budget is hardly any width in particular.",
        hints=["Which loss has width 32, and which does the frontier give it?", "In which order do the rows stand?"],
        seen_in="no thread: planted because a table of the wrong shape raises no error if its numbers are as many.",
        evidence=evidence.compute,
        holds=_a_mean_is_of_one_width_and_length,
    ),
    Fault(
        name="a size counts beyond the budgets that it was trained for, with its first or last loss",
        changes=[
            Change(
                "table = np.stack([np.interp(at, np.log(c), loss, left=np.inf, right=np.inf) for c, loss in runs])",
                "table = np.stack([np.interp(at, np.log(c), loss) for c, loss in runs])",
            )
        ],
        symptom="For small budgets the program promises losses that a model of no size can reach.",
        hints=["Which width is said to be best where budgets are small?", "What did that width cost at least?"],
        seen_in="no thread: planted because an interpolation goes on beyond its ends without a word.",
        evidence=evidence.compute,
    ),
    Fault(
        name="the tied table is taken off twice, as an embedding and as a head: it was counted once",
        changes=[
            Change(
                "return counted.total - counted.embedding",
                "return counted.total - 2 * counted.embedding",
                in_caller=True,
            )
        ],
        symptom="Narrow models are better than their size allows.",
        hints=["How large is N of the narrowest model?", "How often does a table stand in the total?"],
        seen_in="pytorch/torchtitan#3225: how tied weights were counted; fixed there. "
        "bigscience-workshop/Megatron-DeepSpeed#99: parameters counted twice; reported there.",
        evidence=evidence.law,
        holds=_sizes_are_without_the_embedding,
    ),
    Fault(
        name="the lowest point of a parabola is moved to the sizes that were run: an edge looks like a valley",
        changes=[
            Change(
                """
                lowest = -c1 / (2 * c2)
                if c2 <= 0 or not np.log(np.min(n)) <= lowest <= np.log(np.max(n)):
                """,
                """
                lowest = np.clip(-c1 / (2 * c2), np.log(np.min(n)), np.log(np.max(n)))
                if c2 <= 0:
                """,
            )
        ],
        symptom="From some budget on, more compute asks for no larger model.",
        hints=["How do runs and law differ at the largest budgets?", "Which sizes were run?"],
        seen_in="no thread: planted because the lowest point of a grid is often at its edge.",
        evidence=evidence.budgets,
    ),
    Fault(
        name="runs are drawn one by one, though those of a width and a seed share chance: the deviations are wrong",
        changes=[
            Change(
                'groups.setdefault((row["width"], row["seed"]), []).append(row)',
                'groups.setdefault((row["width"], row["seed"], row["steps"]), []).append(row)',
                in_caller=True,
            )
        ],
        symptom="From study to study the law's exponents do not vary as the program says.",
        hints=["How far apart are studies, and how far does it expect them to be?", "Which losses are off together?"],
        seen_in="no thread: planted because a list of runs is what is at hand.",
        evidence=evidence.spreads,
        holds=_a_sample_is_of_what_one_chance_drew,
    ),
    Fault(
        name="nothing: the patient is healthy. N leaves out the products of head and scores, so that C is above 6 N D",
        changes=[],
        symptom="C is 6 N D, papers say. By this program's count it is up to two and a half times as much.",
        hints=["For which widths is it near?", "What does a token cost that is in no block's parameters?"],
        seen_in="facebookresearch/DiT#14: which factor FLOPs and parameters have; explained there.",
        evidence=evidence.counted,
    ),
    Fault(
        name="the first pass counts as a repetition: a text that is read once is worth more than its tokens",
        changes=[
            Change("repeats = max(tokens / unique - 1, 0.0)", "repeats = tokens / unique"),
        ],
        symptom="Half a text is worth more than it has tokens.",
        hints=["What are half an epoch and one epoch worth?", "How many repetitions has one epoch?"],
        seen_in="no thread: planted because epochs and repetitions differ by one.",
        evidence=evidence.repeated,
    ),
    Fault(
        name="every run has the chance of seed 0: three seeds are one",
        changes=[
            Change(
                "loss = source.measured(width, seed, steps, (BATCH, CONTEXT))",
                "loss = source.measured(width, SEEDS[0], steps, (BATCH, CONTEXT))",
                in_caller=True,
            )
        ],
        symptom="Three seeds were run, and they agree remarkably well.",
        hints=["What differs between two seeds?", "Where does a run's seed go?"],
        seen_in="no thread: planted because a seed that is not passed on raises no error.",
        evidence=evidence.spreads,
        holds=_seeds_differ,
    ),
    Fault(
        name="settings: all runs lie within a factor of 1.5 in tokens: floor and tokens' term cannot be told apart",
        changes=[
            Change(
                "STEPS = (200, 400, 800, 1600, 3200, 6400)", "STEPS = (200, 220, 240, 260, 280, 300)", in_caller=True
            )
        ],
        symptom="The law fits all runs. Of larger ones it says what is not so.",
        hints=["Which constants are off?", "How far apart are the runs?"],
        seen_in="no thread: planted because runs that are alike are cheap.",
        evidence=evidence.law,
        holds=_a_larger_run_is_foretold,
    ),
    Fault(
        name="settings: Huber's delta is 1, so that every residual is squared, and a run that went wrong pulls hard",
        changes=[Change("DELTA = 1e-3", "DELTA = 1.0")],
        symptom="One run went wrong, and the law is off at its neighbours.",
        hints=["Which residuals are not what chance makes of them?", "From which size on does a run pull no harder?"],
        seen_in="no thread: planted because a robust loss with a large delta is no robust loss.",
        evidence=evidence.law,
    ),
    Fault(
        name="only the forward pass is counted",
        changes=[
            Change(
                "return 3 * forward_flops(shape, context) * tokens",
                "return forward_flops(shape, context) * tokens",
            )
        ],
        symptom="The law's exponents are right, and what the program says of budgets is not.",
        hints=["By which factor is a run's cost off?", "What is done with a token after its loss is known?"],
        seen_in="facebookresearch/DiT#14: FLOPs that were off, and the factors 6, 2 and 1; explained there.",
        evidence=evidence.both_costs,
    ),
    Fault(
        name="samples are drawn without replacement: each has the same groups, and the deviation is that of rounding",
        changes=[
            Change(
                "picks = generator.integers(len(groups), size=(draws, len(groups)))",
                "picks = [generator.permutation(len(groups)) for _ in range(draws)]",
            )
        ],
        symptom="By the program's own deviations the law's exponents are known to the last digit.",
        hints=["What differs between two samples?", "Can a group be in a sample twice?"],
        seen_in="no thread: planted because an order by chance looks like a draw.",
        evidence=evidence.spreads,
    ),
    Fault(
        name="the cosine is cut off at a tenth of the peak: the rate stays there, and trainings end with its noise",
        changes=[
            Change(
                "return LEAST + (1 - LEAST) * 0.5 * (1 + math.cos(math.pi * step / steps))",
                "return max(0.1, LEAST + (1 - LEAST) * 0.5 * (1 + math.cos(math.pi * step / steps)))",
                in_caller=True,
            )
        ],
        symptom="The plot of the learning rate has a kink.",
        hints=["What is the rate near the end?", "Does it fall to its last step?"],
        seen_in="EleutherAI/gpt-neox#1008: a rate that was cut off at its least, and a wrong decay; fixed there.",
        evidence=evidence.trained,
        holds=_the_rate_falls_to_its_end,
    ),
    Fault(
        name="nothing: the patient is healthy. One run is a tenth too high; Huber's loss passes it by, and a mean of "
        "residuals does not",
        changes=[],
        symptom="In one place the law is off by far more than elsewhere.",
        hints=["How many runs are in that mean, and how far is each off?", "Is the law off, or a run?"],
        seen_in="no thread: planted because a law that passes a run by looks like a bad fit.",
        evidence=evidence.law,
    ),
    Fault(
        name="tokens are steps times rows, and the embedding is in N",
        changes=[
            Change("return steps * BATCH * CONTEXT", "return steps * BATCH", in_caller=True),
            Change("return counted.total - counted.embedding", "return counted.total", in_caller=True),
        ],
        symptom="Neither sizes nor budgets are those of the models. The author's first repair was not enough.",
        hints=["Two columns are off, by two rules.", "There are two faults: mend either alone and look again."],
        seen_in="facebookresearch/DiT#14 and formll/resolving-scaling-law-discrepancies#1: what FLOPs and N count; "
        "discussed there.",
        evidence=evidence.both_costs,
        holds=_costs_and_sizes,
    ),
    Fault(
        name="the look-up is counted as a product, and of attention's two products one is: short texts look too dear, "
        "long ones too cheap",
        changes=[
            Change(
                "matrices = count_parameters(shape).blocks - norms + shape.vocab_size * d",
                "matrices = count_parameters(shape).total - norms + shape.vocab_size * d",
            ),
            Change(
                "return 2.0 * matrices + shape.n_layers * 4.0 * context * d",
                "return 2.0 * matrices + shape.n_layers * 2.0 * context * d",
            ),
        ],
        symptom="The program's counts are too high for some texts, and too low for others.",
        hints=[
            "What does the error depend on, besides the length?",
            "There are two faults: mend either alone and look again.",
        ],
        seen_in="tenstorrent/tt-metal#50114 and pytorch/torchtitan#4366: an embedding counted as FLOPs, and one of two "
        "products of attention; fixed there.",
        evidence=evidence.counted,
    ),
    Fault(
        name="the schedule counts parts of a step, and checkpoints of the longest training stand for others",
        changes=[
            Change(
                "scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share(step, steps))",
                "scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share(step * PARTS, steps))",
                in_caller=True,
            ),
            Change(
                "return np.array([np.mean([train(steps, seed)[0][steps] for seed in SEEDS]) for steps in LENGTHS])",
                """
                above = [train(max(LENGTHS), seed)[0] for seed in SEEDS]
                return np.array([np.mean([each[steps] for each in above]) for steps in LENGTHS])
                """,
                in_caller=True,
            ),
        ],
        symptom="The curve of the loss over tokens rises at the end. The author's first repair left it bent.",
        hints=[
            "Compare the curve with trainings that are run alone, and look at their rates.",
            "There are two faults: mend either alone and look again.",
        ],
        seen_in="Lightning-AI/pytorch-lightning#1476: a schedule that went on with each batch of an accumulated step; "
        "fixed there.",
        evidence=evidence.trained,
        holds=_annealed,
    ),
]
