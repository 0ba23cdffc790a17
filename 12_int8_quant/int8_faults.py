"""The faults of lesson 12: what ails each patient of its clinic, and its answer. Reading on spoils it.

Kinds: a line of the helper, of its caller, or a setting; two at once; nothing at all; and faults that pass every check,
each with the property that catches it.
"""

import int8_evidence as evidence
import torch
from int8_model import calibrate

from shared.clinic import Change, Fault


def _scales_hold_what_was_seen(helper, caller):
    """No number of the texts on which scales are found is beyond what was found, the first words' included."""
    model, ids = caller.load(), caller.texts()
    found = caller.ranges(model, ids)
    for name, largest in calibrate(model, ids).items():
        held = found[name.removeprefix("blocks.")].abs().amax(dim=0)
        if (largest > held).any():
            at = int((largest - held).argmax())
            return f"{name}, input {at}: up to {largest[at]:.3g} on these texts, {held[at]:.3g} was found"


def _fixed_scales_cost_nothing(helper, caller):
    """Smoothed and with fixed scales the model is as good as in float."""
    model = caller.load()
    before, after = evidence.nats(model), evidence.nats(caller.small(model, "fixed"))
    if not abs(after - before) < 0.01:  # the healthy one: 0.001
        return f"{before:.3f} nats in float, {after:.3f} with fixed scales"


def _the_given_model_stays(helper, caller):
    """To make a smaller model leaves the one that it is made from as it was."""
    model = caller.load()
    before = [type(it).__name__ for it in model.modules()]
    caller.small(model, "weights")
    changed = [
        new for old, new in zip(before, (type(it).__name__ for it in model.modules()), strict=True) if old != new
    ]
    return f"{len(changed)} layers of the given model are now {changed[0]}" if changed else None


def _each_output_has_its_scale(helper, caller):
    """A weight is at most half a step of its own output's largest weight away."""
    worst = evidence.weight_errors(caller)[1].amax(dim=1) * 127
    if (worst > 0.501).any():  # float32 rounds steps of up to 127 at 6e-8
        return f"largest error of each output, in steps of its own: {[round(float(it), 2) for it in worst]}"


def _groups_keep_to_their_row(helper, caller):
    """A number in four bits is at most half of 1/15 of its own output's range away, whatever the width."""
    for width in evidence.WIDTHS:
        worst = float(evidence.file_errors(caller, width).max())
        if worst > 2 / 15 / 2 + 1e-3:  # the range is at most twice the largest weight
            return f"{width} inputs: an error of {worst:.2f} of the output's largest weight, expected at most 0.067"


def _size_does_not_matter(helper, caller):
    """Numbers 2^30 times smaller come back 2^30 times smaller, to the last digit."""
    x = torch.linspace(-1, 2, 60).view(3, 20)
    for by in ("tensor", "row", "column", 5):
        for zero in (False, True):
            back, smaller = (helper.round_trip(it, by, zero=zero) for it in (x, x * 2**-30))
            if not torch.equal(smaller * 2**30, back):
                return (
                    f"by {by!r}, zero point {zero}: numbers 2^30 times smaller come back as {smaller[0, :3].tolist()}"
                )


CLAMP = "return steps(x, scale).round_().clamp_(-top(bits), top(bits)).to(torch.int8)"
ABSMAX = "return ({} / top(bits)).clamp(min=TINY)"
OUTLIERS = "return {}.flatten(0, -2).any(dim=0)"

FAULTS = [
    Fault(
        name="what the zero point adds to a sum is taken off the bias, and again at each call",
        changes=[
            Change(
                "return int8.scaled_product(codes, self.step, self.codes, self.scale) + self.bias",
                "return int8.scaled_product(codes, self.step, self.codes, self.scale, self.zero) + self.bias",
                in_caller=True,
            )
        ],
        symptom="Scales were fixed before, so that nothing has to be found at a call. Not one word is right.",
        hints=[
            "Is it in all layers? What have those in common in which it is?",
            "Is the error another one for each token, or for each channel?",
            "What is the same at each call, and how often is it taken off?",
        ],
        seen_in="no thread: planted because either place is right. hatchetProject/QuEST#18 is a cousin: the zero point "
        "on one side only; confirmed there.",
        evidence=evidence.layer_map,
        holds=_fixed_scales_cost_nothing,
    ),
    Fault(
        name="nothing: the patient is healthy. Which columns have outliers is asked of all texts of a call together; "
        "with another text beside it more of a text's columns are multiplied in float",
        changes=[],
        symptom="A text has other logits when other texts stand beside it. In float and in the other ways it has not.",
        hints=[
            "Which parts of a layer see more than one text?",
            "Is a text worse off with neighbours than alone? Which of its columns are rounded then?",
        ],
        seen_in="huggingface/transformers#22269: whether it is to be expected is asked there. "
        "bitsandbytes-foundation/bitsandbytes#28: the same, reported as a bug.",
        evidence=evidence.neighbours,
    ),
    Fault(
        name="a column is an outlier if its mean is above the threshold: one that has a single large number is not",
        changes=[
            Change(OUTLIERS.format("(x.abs() > threshold)"), "return x.abs().flatten(0, -2).mean(dim=0) > threshold")
        ],
        symptom="Outliers are taken out, and most layers are the better for it. Some gain nothing.",
        hints=[
            "In which layers are fewer columns taken than there are? What kind of outliers have these?",
            "How many large numbers does it take to spoil a token's scale?",
        ],
        seen_in="no thread: planted because outliers that stand in one channel for all tokens are found all the same. "
        "bitsandbytes-foundation/bitsandbytes#891 is a cousin: where outliers are looked for is asked there.",
        evidence=evidence.columns,
    ),
    Fault(
        name="scales are fixed by what the layers were given before smoothing",
        changes=[
            Change(
                """
                smoothed = smooth(model, ranges(model, texts()))
                found = ranges(smoothed, texts())
                """,
                """
                found = ranges(model, texts())
                smoothed = smooth(model, found)
                """,
                in_caller=True,
            )
        ],
        symptom="Smoothing takes the outliers away and changes nothing in float. In 8 bits the model is ruined by it.",
        hints=[
            "How many of the 255 levels are used by the inputs of each layer?",
            "Scales were found on the right texts. On the right model?",
        ],
        seen_in="huggingface/optimum-amd#165 is a cousin: the order of calibration and of what changes the weights. "
        "mit-han-lab/smoothquant#22: why there are two calibrations is asked there.",
        evidence=evidence.clipped,
        holds=_fixed_scales_cost_nothing,
    ),
    Fault(
        name="a scale moves into a norm's weight and not into its bias",
        changes=[Change('for name in ("weight", "bias"):', 'for name in ("weight",):')],
        symptom="Smoothing is to change nothing as long as nothing is rounded. It changes the loss of every line.",
        hints=[
            "Is something lost with outliers already, before they are smoothed away?",
            "What does a norm put out when its input is 0?",
        ],
        seen_in="mit-han-lab/llm-awq#318 is a cousin: a norm without a bias. mit-han-lab/smoothquant#79: what becomes "
        "of the norm is asked there.",
        evidence=evidence.moved,
    ),
    Fault(
        name="without PyTorch's kernel codes are multiplied and added up in half precision",
        changes=[Change("return (rows.double() @ w.double().t()).int()", "return (rows.half() @ w.half().t()).int()")],
        symptom="One file, two machines. On one of them the model is as good as before, on the other it is lost.",
        hints=[
            "From which length on are products wrong on that machine? How large are they there?",
            "What is the largest number that 16 bits hold? And from which one on do they hold even numbers only?",
        ],
        seen_in="bitsandbytes-foundation/bitsandbytes#165: NaN on machines without the kernel, traced to sums in half "
        "precision.",
        evidence=evidence.kernels,
    ),
    Fault(
        name="scales are found without each text's first token, which has the largest numbers of all",
        changes=[Change("SKIPPED = 0", "SKIPPED = 1", in_caller=True)],
        symptom="All lines are as likely as before. Only who lets the model begin on its own gets an odd first word.",
        hints=[
            "From which position is it wrong, and in which way of making the model smaller alone?",
            "What is larger there than anywhere else? Which layer cannot hold it?",
            "Which tokens were scales found on?",
        ],
        seen_in="Xilinx/brevitas#1229 and Samsung/TICO#850: texts to find scales on lacked the first token.",
        evidence=evidence.positions,
        holds=_scales_hold_what_was_seen,
    ),
    Fault(
        name="a scale has 128 steps, and codes end at 127",
        changes=[
            Change(
                ABSMAX.format("torch.maximum(-low, high)"),
                "return (torch.maximum(-low, high) / (top(bits) + 1)).clamp(min=TINY)",
            )
        ],
        symptom="All numbers come back as near as can be, but for one in each row.",
        hints=[
            "Which number of a row is it? Is it always too small?",
            "How many steps are there from 0 to the largest code, and how many has the scale?",
        ],
        seen_in="IntelLabs/distiller#463: the scale was that of another range than the codes; fixed there. "
        "microsoft/onnxruntime#10170: the same.",
        evidence=evidence.codes,
    ),
    Fault(
        name="no scale is below 1e-5, so that small numbers have few codes, or none",
        changes=[Change("TINY = torch.finfo(torch.float32).tiny", "TINY = 1e-5")],
        symptom="A model is good in 8 bits. The same function, its weights written another way, is no longer one.",
        hints=[
            "From which size of numbers on does it go wrong, and how many steps are they there?",
            "What must a scale not be? Is that all that it is kept from?",
        ],
        seen_in="pytorch/ao#4534: a least scale that was too large cost perplexity; fixed there. "
        "openai/parameter-golf#775: most rows met one.",
        evidence=evidence.small_numbers,
        holds=_size_does_not_matter,
    ),
    Fault(
        name="a scale is moved the wrong way at both ends: the norm is divided and the matrix multiplied",
        changes=[
            Change(
                "new[rows] *= factors.view(-1, *[1] * (new.ndim - 1))",
                "new[rows] /= factors.view(-1, *[1] * (new.ndim - 1))",
            ),
            Change(
                "after.weight = nn.Parameter(after.weight.detach() / factors, after.weight.requires_grad)",
                "after.weight = nn.Parameter(after.weight.detach() * factors, after.weight.requires_grad)",
            ),
        ],
        symptom="Smoothing changes nothing in float, as it should. Smoothed, the model does not survive 8 bits.",
        hints=[
            "What has smoothing made of the largest inputs?",
            "Which of the two has to become smaller, the inputs or the matrix?",
            "There are two faults that cancel each other: mend either alone and look again.",
        ],
        seen_in="no thread: planted because the function is the same. mit-han-lab/smoothquant#79: which side is "
        "divided is asked there.",
        evidence=evidence.moved,
    ),
    Fault(
        name="a matrix is cut into groups from its first number to its last, across the ends of rows",
        changes=[
            Change(
                """
                width = matrix.shape[1]
                rows = F.pad(matrix[None], (0, -width % GROUP), mode="replicate")[0]
                return int8.from_groups(*int8.to_groups(rows, GROUP, bits=4))[:, :width]
                """,
                """
                numbers = matrix.flatten()
                padded = F.pad(numbers, (0, -len(numbers) % GROUP))
                return int8.from_groups(*int8.to_groups(padded, GROUP, bits=4))[: len(numbers)].view_as(matrix)
                """,
                in_caller=True,
            )
        ],
        symptom="Files in 4 bits were fine for years. In those of a newer model, of another width, some weights are "
        "noise.",
        hints=[
            "At which widths is it right?",
            "Where in a row is the error, and beside which row?",
            "Which numbers share a scale?",
        ],
        seen_in="AutoGPTQ/AutoGPTQ#518: whether a group goes on across a matrix is asked there. "
        "vllm-project/compressed-tensors#447 is a cousin: a width that groups do not divide.",
        evidence=evidence.files,
        holds=_groups_keep_to_their_row,
    ),
    Fault(
        name="the zero point is one too high",
        changes=[
            Change(
                "return scale, (-top(bits) - 1 - low / scale).round().int()",
                "return scale, (-top(bits) - low / scale).round().int()",
            )
        ],
        symptom="With a zero point 0 is exact and the mean error is what it should be. One end of every range is not.",
        hints=["By how many steps is that end off?", "Which code would the highest number of a range have?"],
        seen_in="ModelCloud/GPTQModel#2351: a zero point one off; fixed there. vllm-project/vllm#38966: two formats "
        "that differ by one.",
        evidence=evidence.ranges,
    ),
    Fault(
        name="the size of the highest number is taken, not of the largest: negative ones beyond it are clipped",
        changes=[Change(ABSMAX.format("torch.maximum(-low, high)"), ABSMAX.format("high.abs()"))],
        symptom="A row of numbers comes back well. With all signs turned around it does not.",
        hints=[
            "Which numbers of a row are wrong, and which sign have they?",
            "What is the highest of -5, 1 and 2, and what the largest?",
        ],
        seen_in="OpenGVLab/OmniQuant#42: the highest weight was taken in place of the largest; fixed there.",
        evidence=evidence.codes,
    ),
    Fault(
        name="layers are replaced in the model that was given: float is compared with itself in 8 bits",
        changes=[Change("small = copy.deepcopy(model)", "small = model", in_caller=True)],
        symptom="Four ways are compared. Three are equally good, to the last digit, and the fourth does not start.",
        hints=[
            "What do different ways to round have to differ in?",
            "The loss of the model itself was taken twice. What lay between?",
        ],
        seen_in="pytorch/pytorch#25054: whether to copy is argued there. pytorch/tutorials#2406: a tutorial compared a "
        "model with one that had been changed in place.",
        evidence=evidence.losses,
        holds=_the_given_model_stays,
    ),
    Fault(
        name="codes are not clamped: what is beyond a fixed scale comes out at the other end",
        changes=[Change(CLAMP, "return steps(x, scale).round_().to(torch.int8)")],
        symptom="Scales were fixed on a dozen texts. Five of six other lines are as good as before, one is not.",
        hints=["Which of the ways is hit, and what sets it apart from the others?", "What is 130 in 8 bits?"],
        seen_in="uxlfoundation/oneDNN#5879: a missing clamp, 128 becomes -128; said in a review. ROCm/aiter#4637: the "
        "same.",
        evidence=evidence.clipped,
    ),
    Fault(
        name="a number and its group's lowest are rounded each by itself, and then subtracted",
        changes=[
            Change(
                "codes = steps(w.unflatten(-1, (-1, size)) - low, scale).round()",
                "codes = steps(w.unflatten(-1, (-1, size)), scale).round() - (low / scale).round()",
            )
        ],
        symptom="How good 4 bits are depends on where in a row's range 0 is, which should not matter.",
        hints=[
            "Is the error's mean 0? What would make all of a group's numbers be off by the same?",
            "How often is something rounded on the way to a code?",
        ],
        seen_in="no thread: planted because with a lowest number that is a whole number of steps it is right.",
        evidence=evidence.groups,
    ),
    Fault(
        name="a matrix has a scale for each input: outputs of unlike size share it",
        changes=[Change('BY = "row"', 'BY = "column"', in_caller=True)],
        symptom="Weights alone are in 8 bits. Of some matrices the small outputs are noise, of others nothing is lost.",
        hints=["What do the outputs that are wrong have in common?", "Which weights share a scale?"],
        seen_in="qualcomm/aimet#3184 and microsoft/onnxruntime#28228: scales along the wrong axis; fixed there.",
        evidence=evidence.outputs,
        holds=_each_output_has_its_scale,
    ),
    Fault(
        name="the last text alone decides on a scale, and codes are cut off and not rounded",
        changes=[
            Change(
                """
                old = found.get(name, new)
                found[name] = torch.stack([torch.minimum(old[0], new[0]), torch.maximum(old[1], new[1])])
                """,
                "found[name] = new",
                in_caller=True,
            ),
            Change(CLAMP, "return steps(x, scale).clamp_(-top(bits), top(bits)).to(torch.int8)"),
        ],
        symptom="Fixed scales do not hold the very texts on which they were found. Once they do, numbers still shrink.",
        hints=[
            "A dozen texts were read. How many of them show in the scales?",
            "What is 2.9 steps if it is cut off?",
            "There are two faults, one in each file: mend either alone and look again.",
        ],
        seen_in="apple/coremltools#2704: the range was that of the last batch. sgl-project/sglang-jax#1598: a cast "
        "without rounding; fixed there.",
        evidence=evidence.clipped,
        holds=_scales_hold_what_was_seen,
    ),
    Fault(
        name="a range need not hold 0: where all numbers are above it, 0 has no code",
        changes=[
            Change(
                "low, high, n_steps = low.clamp(max=0), high.clamp(min=0), 2 * top(bits) + 1",
                "n_steps = 2 * top(bits) + 1",
            )
        ],
        symptom="The step is finer than it was and no number of a range is wrong. Padding shows.",
        hints=["What comes back of 0, in which ranges?", "Which number has to be exact, even if it does not occur?"],
        seen_in="mit-han-lab/llm-awq#193 and AutoGPTQ/AutoGPTQ#293: what becomes of the zero point of positive numbers "
        "is asked there.",
        evidence=evidence.ranges,
    ),
    Fault(
        name="nothing: the patient is healthy. Codes from -127 to 127 are as many below 0 as above; -128 is left out "
        "so that x and -x have the same code but for the sign",
        changes=[],
        symptom="A byte has 256 codes. Counted over 25,401 numbers, one of them is never used.",
        hints=["For which number would it stand?", "What are the codes of x and of -x?"],
        seen_in="pytorch/xla#9465: with such a scale a clamp does nothing, and was taken out.",
        evidence=evidence.codes,
    ),
    Fault(
        name="a token's scale is taken before its outliers are left out: what is left has few levels",
        changes=[Change('scale = absmax_scale(rest, "row")', 'scale = absmax_scale(x, "row")')],
        symptom="All outliers are found and multiplied in float. The rest is as bad as if they were not.",
        hints=[
            "Are the right columns taken? What is then left in a row?",
            "How many codes do the numbers that are left use?",
        ],
        seen_in="no thread: planted because each half is right. bitsandbytes-foundation/bitsandbytes#206: how the "
        "halves are made is asked there.",
        evidence=evidence.columns,
        example=True,
    ),
]
