"""The faults of lesson 06: what ails each patient of its clinic, and its answer. Reading on spoils it."""

from shared.clinic import Change, Fault

FAULTS = [
    Fault(
        name="epsilon outside the root",
        changes=[
            Change(
                "scale = (centred.square().mean(dims, keepdim=True) + eps).rsqrt()",
                "scale = 1 / (centred.square().mean(dims, keepdim=True).sqrt() + eps)",
            )
        ],
        symptom="no difference, except where activations are tiny: at size 0.001 the output is three times too large",
        hints=["what does the healthy one do with numbers of size 0.001?", "where does the paper have its epsilon?"],
        seen_in="hyunwoongko/transformer#7, codertimo/BERT-pytorch#30",
    ),
    Fault(
        name="the unbiased variance",
        changes=[
            Change(
                "scale = (centred.square().mean(dims, keepdim=True) + eps).rsqrt()",
                "n = math.prod(x.shape[d] for d in dims)\n"
                "scale = (centred.square().sum(dims, keepdim=True) / (n - 1) + eps).rsqrt()",
            )
        ],
        symptom="the output is too small: at 512 numbers by a thousandth, at 5 by a tenth",
        hints=["the mean square of what a fresh norm gives should be 1: is it?"],
        seen_in="harvardnlp/annotated-transformer#119",
    ),
    Fault(
        name="the square in place of the root",
        changes=[
            Change(
                "scale = (centred.square().mean(dims, keepdim=True) + eps).rsqrt()",
                "scale = 1 / (centred.square().mean(dims, keepdim=True) + eps) ** 2",
            )
        ],
        symptom="large inputs come out tiny, tiny ones huge; only where the mean square is 1 all is well",
        hints=["make the input ten times as large: what should happen?"],
        seen_in="131250208/TPlinker-joint-extraction#37",
    ),
    Fault(
        name="squares in float16",
        changes=[Change("return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x", "return x")],
        symptom="perfect in float32; in float16 tokens of large numbers come out as zeros",
        hints=["what is the square of 300, and what is float16's largest number?"],
        seen_in="jingyaogong/minimind#301",
    ),
    Fault(
        name="cast before the gain",
        changes=[
            Change(
                "return (unit * gain + bias).to(x.dtype), back",
                "return unit.to(x.dtype) * gain.to(x.dtype) + bias.to(x.dtype), back",
            )
        ],
        symptom="in bfloat16 each layer drifts by a last digit from the model that the weights are from",
        hints=["how many roundings are there between unit and y?"],
        seen_in="google/gemma_pytorch#67",
    ),
    Fault(
        name="the mean over the wrong axes",
        changes=[
            Change(
                "unit, back_unit = normalise(widened(x), (-1,), eps, centre=True)",
                "unit, back_unit = normalise(widened(x), tuple(range(1, x.ndim)), eps, centre=True)",
            )
        ],
        symptom="attention is causal, and yet a text's first tokens score otherwise when its last one changes",
        hints=["which part, other than attention, can bring tokens together?", "over which axes is the mean?"],
        seen_in="reczoo/FuxiCTR#23",
    ),
    Fault(
        name="no gradient through the mean",
        changes=[Change("return scale * (du - along - shift)", "return scale * (du - along)")],
        symptom="the forward pass is right to the last digit; training is, at our size, none the worse for it",
        hints=["which two directions should be missing in the gradient?"],
        seen_in="openxla/xla#8225 (found in review: the backward pass that was matched is not LayerNorm's)",
    ),
    Fault(
        name="gate and value swapped",
        changes=[
            Change(
                "return self.proj(swiglu(self.gate(x), self.up(x))[0])",
                "return self.proj(swiglu(self.up(x), self.gate(x))[0])",
            )
        ],
        symptom="trained from scratch: nothing at all. With weights from elsewhere: gibberish",
        hints=["the two matrices have the same shape: what tells them apart?"],
        seen_in="ml-explore/mlx-lm#767",
    ),
    Fault(
        name="a parenthesis too far",
        changes=[Change("return value * up, back", "return silu(gate * up)[0], back")],
        symptom="trained from scratch it is no worse, at our size; turn the signs of gate and up, and the output stays",
        hints=["the healthy one, with both signs turned: what changes?", "what goes through silu?"],
        seen_in="Nijikadesu/breakdown-minimind#3",
    ),
    Fault(
        name="a constant of GELU",
        changes=[Change("t = torch.tanh(c * (x + 0.044715 * x**3))", "t = torch.tanh(c * (x + 0.44715 * x**3))")],
        symptom="a curve that looks like a GELU; its slope by hand is no longer its slope",
        hints=["compare with the exact one at x = 1: 0.8413"],
        seen_in="apache/tvm#16188 (a tanh GELU that was not one)",
    ),
    Fault(
        name="momentum the other way round",
        changes=[
            Change(
                "self.mean += self.momentum * (tokens.mean(0) - self.mean)",
                "self.mean += (1 - self.momentum) * (tokens.mean(0) - self.mean)",
            )
        ],
        symptom="in training all is well; in eval mode the result depends on the last batch",
        hints=["how much of the remembered mean is left after one batch?"],
        seen_in="Jermmy/pytorch-quantization-demo#17 (PyTorch's 0.1 in TensorFlow's formula), bonlime/pytorch-tools#97",
    ),
    Fault(
        name="a variance that is never remembered",
        changes=[
            Change(
                "self.variance += self.momentum * (tokens.var(0) - self.variance)",
                "self.variance.add(self.momentum * (tokens.var(0) - self.variance))",
            )
        ],
        symptom="in training all is well; in eval mode the mean square is not near 1, however long one trained",
        hints=["print what eval mode uses, before and after training"],
        seen_in="paiml/aprender#2166 (there, neither mean nor variance)",
    ),
]
