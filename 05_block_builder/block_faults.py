"""The faults of lesson 05: what ails each patient of its clinic, and its answer. Reading on spoils it."""

from shared.clinic import Change, Fault

FAULTS = [
    Fault(
        name="the residual is taken after the norm",
        changes=[
            Change(
                "h = self.skip * x + self.drop(self.attention(self.norm_1(x)))",
                "h = self.skip * self.norm_1(x) + self.drop(self.attention(self.norm_1(x)))",
            )
        ],
        symptom="two layers train as ever, six stay at the bytes' frequencies at the rate that suits a healthy model; "
        "before training, all tokens' streams come out equally long",
        hints=["silence all sub-layers: what reaches the end?", "which x is carried past attention?"],
        seen_in="pytorch/pytorch#61165, Howuhh/faster-trajectory-transformer#3, poloclub/transformer-explainer#32",
    ),
    Fault(
        name="the skip adds the new value to itself",
        changes=[
            Change(
                "h = self.skip * x + self.drop(self.attention(self.norm_1(x)))",
                "x = self.drop(self.attention(self.norm_1(x)))\nh = self.skip * x + x",
            )
        ],
        symptom="no error; two layers learn something, much less than healthy ones; six only how frequent each byte is",
        hints=["is the old x still there when the sum is made?"],
        seen_in="kyegomez/BitNet#32",
    ),
    Fault(
        name="one skip is forgotten",
        changes=[
            Change(
                "return self.skip * h + self.drop(self.feed_forward(self.norm_2(h)))",
                "return self.drop(self.feed_forward(self.norm_2(h)))",
            )
        ],
        symptom="two layers train, a little worse than healthy ones; twelve learn only how frequent each byte is",
        hints=["a block has two skips: count them"],
        seen_in="delira-dev/delira#91, znxlwm/UGATIT-pytorch#32",
    ),
    Fault(
        name="the second skip starts at the block's input",
        changes=[
            Change(
                "return self.skip * h + self.drop(self.feed_forward(self.norm_2(h)))",
                "return self.skip * x + self.drop(self.feed_forward(self.norm_2(h)))",
            )
        ],
        symptom="it trains as well as a healthy one; but the books are not in order",
        hints=["the ledger does not add up: whose entry is missing?", "which of x and h does the second skip carry?"],
        seen_in="strutive07/transformer-tensorflow2.0#14",
    ),
    Fault(
        name="one norm for both sub-layers",
        changes=[
            Change(
                "return self.skip * h + self.drop(self.feed_forward(self.norm_2(h)))",
                "return self.skip * h + self.drop(self.feed_forward(self.norm_1(h)))",
            )
        ],
        symptom="the loss curve is as ever; converted weights give other text; some weights never move",
        hints=["which weights have no gradient?"],
        seen_in="allenai/OLMo#222, lucidrains/mmdit#4",
    ),
    Fault(
        name="dropout left on",
        changes=[Change("return F.dropout(x, self.dropout, self.training)", "return F.dropout(x, self.dropout)")],
        symptom="the same prompt gets other logits each time, and the validation loss is too high",
        hints=["F.dropout is not nn.Dropout: who tells it that training is over?"],
        seen_in="facebookresearch/DME#3",
    ),
    Fault(
        name="untied by the initialisation",
        changes=[
            Change(
                "nn.init.normal_(module.weight, std=std)",
                "module.weight = nn.Parameter(std * torch.randn_like(module.weight))",
            )
        ],
        symptom="a few parameters more than the sheet says; a file that stores one matrix loads as gibberish",
        hints=["are the numbers new, or the whole tensor?", "who else held the old one?"],
        seen_in="Modalities/modalities#357, huggingface/transformers#43429",
    ),
    Fault(
        name="the scaled initialisation reaches nobody",
        changes=[Change('writes = name.endswith(".proj")', 'writes = name == "proj"')],
        symptom="the deeper the model, the longer its stream before training; of a healthy one that is hardly true",
        hints=["print the names that named_modules gives"],
        seen_in="huggingface/transformers#47458",
    ),
    Fault(
        name="the last norm is missing",
        changes=[Change("return self.head(self.norm(x))", "return self.head(x)")],
        symptom="logits grow with depth and with training; the same weights elsewhere give other words",
        hints=["what does a pre-norm stream look like at its end?"],
        seen_in="NVIDIA-NeMo/Speech#2197, vllm-project/speculators#313",
    ),
    Fault(
        name="positions at every layer",
        changes=[Change("x = block(x)", "x = block(self.positions(x))")],
        symptom="it trains well; the stream holds the position many times over",
        hints=["silence all sub-layers: how often is the position in what reaches the end?"],
        seen_in="FLAIROx/jafar#13",
    ),
    Fault(
        name="the labels are shifted twice",
        changes=[
            Change(
                "return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())",
                "return F.cross_entropy(logits[:, :-2].flatten(0, 1), tokens[:, 2:].flatten())",
            )
        ],
        symptom="the loss falls, slowly; what it writes skips every other word",
        hints=["which token is the target of the first logits?"],
        seen_in="huggingface/transformers#37830, huggingface/transformers#47395",
    ),
    Fault(
        name="the labels are not shifted",
        changes=[
            Change(
                "return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())",
                "return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())",
            )
        ],
        symptom="the best loss you ever saw, and it says the last word again and again",
        hints=["what may the model see at position t, and what is it asked for there?"],
        seen_in="huggingface/transformers#404, Project-MONAI/GenerativeModels#314",
    ),
    Fault(
        name="the second gradient of a tied weight replaces the first",
        changes=[Change("g[name] = g[name] + gradient if name in g else gradient", "g[name] = gradient")],
        symptom="it trains, worse than autograd's run; all gradients but one are right to the last digit",
        hints=["which weight is used twice?"],
        seen_in="NVIDIA/TransformerEngine#3437, paiml/entrenar#314",
    ),
]
