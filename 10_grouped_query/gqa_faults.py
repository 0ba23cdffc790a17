"""The faults of lesson 10: what ails each patient of its clinic, and its answer. Reading on spoils it.

Kinds: a line of the helper, of its caller, or a setting; two at once; nothing at all; and faults that pass every check,
each with the property that catches it.
"""

import itertools

import gqa_evidence as evidence

from shared.clinic import Change, Fault


def _reads_what_others_wrote(helper, caller):
    """A layer puts out, at 300 positions, what it does where its weights come from, whatever its sizes and base."""
    ways = (evidence.from_pairs, evidence.from_groups)
    for run, base, (H, K) in itertools.product(ways, (10_000, 500_000), evidence.SIZES):
        gap = evidence.gaps(run, caller, H, K, base).max().item()
        if gap > 1e-4:  # float32; healthy ones are 100 times nearer
            sizes = f"{H} query heads, {K} key heads, base {base:,}"
            return f"{run.__name__}, {sizes}: {gap:.2g} from what its own program gives"


def _memory_is_used(helper, caller):
    """As many texts are answered at once as fit, and not one more."""
    for n in (4, 2, 1):
        model = evidence.loaded(caller, n)
        planned, cache = caller.at_once(model), model.new_cache(1, caller.LONGEST)
        room = caller.MEMORY // (cache.keys.nbytes + cache.values.nbytes)
        if planned != room:
            return f"{n} key heads: {planned} texts at once, there is room for {room}"


def _training_helps(helper, caller):
    """Training makes the converted model better, and leaves the given one as it was."""
    model = caller.load()
    before, start = evidence.nats(model), evidence.nats(helper.pool_model(model, caller.KV_HEADS))
    after = evidence.nats(caller.convert(model)[0])
    if evidence.nats(model) != before:
        return f"the given model has changed: {before:.3f} nats before, {evidence.nats(model):.3f} after"
    return None if after < start - 0.5 else f"{start:.2f} nats before training, {after:.2f} after"  # healthy: 0.97 less


def _a_word_copies_no_keys(helper, caller):
    """One more word makes fewer bytes than the keys and values that it reads."""
    made, cached = evidence.made_for_a_word(caller.attend, 2, 1000)
    return None if made < cached else f"one more word made {made:.0f} KiB to read {cached:.0f} KiB"


PLAN = "sizes = (LONGEST, len(model.blocks), layer.{}, layer.d_head)"
BY_QUERY_HEADS = Change(PLAN.format("n_kv_heads"), PLAN.format("n_heads"), in_caller=True)
HEADS = 'heads = {{"wq": config["n_heads"], "wk": {}}}'
THE_OLD_ONE = Change(
    "return small, fit(small, batch, STEPS, RATE, label=None).loss",
    "return small, fit(model, batch, STEPS, RATE, label=None).loss",
    in_caller=True,
)

FAULTS = [
    Fault(
        name="files that go group by group are cut as if all query heads came first",
        changes=[
            Change(
                """
                heads = tensors["query_key_value"].unflatten(0, (K, G + 2, -1))
                q, k, v = (part.flatten(0, 2) for part in heads.split([G, 1, 1], dim=1))
                """,
                """
                heads = tensors["query_key_value"].unflatten(0, (K * (G + 2), -1))
                q, k, v = (part.flatten(0, 1) for part in heads.split([K * G, K, K]))
                """,
                in_caller=True,
            )
        ],
        symptom="Weights were downloaded. Those of one model work, those of its larger sisters talk nonsense.",
        hints=[
            "What have the sizes in common at which a file is read rightly?",
            "In which order do the heads lie in the file? Write it down for four query heads and two key heads.",
        ],
        seen_in="epfLLM/Megatron-LLM#45: files that go group by group were cut otherwise, which came to light with "
        "grouped heads; fixed there. NVIDIA-NeMo/Megatron-Bridge#1818: the same in an adapter.",
        evidence=evidence.layouts,
        holds=_reads_what_others_wrote,
    ),
    Fault(
        name="nothing: the patient is healthy. `expand` itself makes a view; the batched product behind it wants its "
        "matrices at equal steps in memory, and copies them",
        changes=[],
        symptom="Keys are no longer repeated, they are expanded, and that is a view. It takes half the memory that it "
        "took, where it should take none.",
        hints=[
            "With how many key heads does the view stay one? And what makes the copy, the view or its reader?",
            "Which bytes lie where in (K, G, S, d) if all G are the same? Can (K G) matrices stand at equal steps?",
        ],
        seen_in="huggingface/transformers#36218: whether what is expanded is copied later is asked there, and whether "
        "the product knows how to avoid it.",
        evidence=evidence.ways,
    ),
    Fault(
        name="query heads are dealt out to groups in turn, as cards are: head 1 goes to the second group",
        changes=[
            Change(
                "rows = x.reshape(B, K, H // K * T, m)",
                "rows = x.unflatten(1, (H // K, K)).transpose(1, 2).reshape(B, K, H // K * T, m)",
            )
        ],
        symptom="Each answer begins well. After the first word or two it is about something else.",
        hints=[
            "The first word comes from the pass that reads the prompt, the others from passes of one. What differs?",
            "With four key heads all is right, and with one. What is there to be confused with two only?",
            "Number the query heads before the product and after it.",
        ],
        seen_in="fkodom/grouped-query-attention-pytorch#5 is a cousin: queries of a group were added up; confirmed.",
        evidence=evidence.answers,
    ),
    Fault(
        name="memory is planned by the query heads, of which nothing is stored",
        changes=[BY_QUERY_HEADS],
        symptom="With one key head the cache takes a quarter of what it took. As many people have to wait as before.",
        hints=[
            "How many texts are answered at once, and how much of the memory is in use then?",
            "Which heads does the plan count?",
        ],
        seen_in="vllm-project/vllm#29736: an estimate by all heads, said in a review. hahnyuan/LLM-Viewer#12: the "
        "same for what is read; fixed there.",
        evidence=evidence.memory,
        holds=_memory_is_used,
    ),
    Fault(
        name="keys and values are laid out as 0 1 0 1 instead of 0 0 1 1",
        changes=[
            Change(
                "k, v = (x.repeat_interleave(G, dim=1) for x in (k, v))",
                "k, v = (x.repeat(1, G, 1, 1) for x in (k, v))",
            )
        ],
        symptom="A model of few key heads misreads what it is asked. What it goes on to write fits its misreading.",
        hints=[
            "Which query heads are right, and why are the first and the last among them?",
            "What does a pass of one word do otherwise than a pass of five?",
            "Copies are made for the query heads. In which order should they stand?",
        ],
        seen_in="apple/axlearn#842: a change of GQA's behaviour, mended there. onnx/onnx#7274: `repeat` was to become "
        "`repeat_interleave`.",
        evidence=evidence.readers,
        example=True,
    ),
    Fault(
        name="each pass turns its rotary keys as if it began the text: a word that comes alone stands at 0",
        changes=[
            Change(
                "return torch.cat([self.norm(latent), rotate(key, self.rotary_base, positions)], dim=-1)",
                "return torch.cat([self.norm(latent), rotate(key, self.rotary_base)], dim=-1)",
            )
        ],
        symptom="A small model has learnt its texts to perfection by keys and values. From its latents alone it writes "
        "the first letters well, and the others badly.",
        hints=[
            "Is it the absorbed product? Let the same latents be read the other way.",
            "The first letter comes from a pass of twelve, the others from passes of one. What is different there?",
            "What is stored of a letter besides its latent, and what does that hang on?",
        ],
        seen_in="tensorgi/TPA#4 is a cousin: in latent attention rotation took another axis for the positions, and was "
        "blamed for its results; fixed there.",
        evidence=evidence.letters,
    ),
    Fault(
        name="the model that was given is trained on, the converted one is handed out as it was",
        changes=[THE_OLD_ONE],
        symptom="After a conversion the training begins at an excellent loss. The model that comes of it is no better "
        "than before.",
        hints=[
            "What loss does the first step have, and what loss should a model just converted have?",
            "Something has become another one that was to stay as it is.",
        ],
        seen_in="microsoft/nni#4521 is a cousin: layers were replaced, the optimizer had the old ones; answered.",
        evidence=evidence.conversion,
        holds=_training_helps,
    ),
    Fault(
        name="the number of groups is taken for their size: a query head is divided by the key heads",
        changes=[Change("return query_head // (n_heads // n_kv_heads)", "return query_head // n_kv_heads")],
        symptom="Weights are given to a program that knows no sharing. Tried with the story model, it is exact.",
        hints=[
            "At which sizes is it right? How many query heads has a group there, and how many groups are there?",
            "Which key head should query head 3 of 6 read if there are 3?",
        ],
        seen_in="rasbt/LLMs-from-scratch#922: the number of groups was taken for their size; reported there.",
        evidence=evidence.layouts,
    ),
    Fault(
        name="absorbed, the two matrices change places: queries go through the one that makes values",
        changes=[Change("up_k, up_v = self.ups()", "up_v, up_k = self.ups()")],
        symptom="A small model has learnt its texts to perfection. It does not write one of them.",
        hints=[
            "It is trained in one way and served in another. Which parts have both in common?",
            "Which matrix does a query meet, and which one what was read?",
        ],
        seen_in="no thread: planted because both have the same shape. PaddlePaddle/PaddleFleet#1910 is a cousin: what "
        "latents meant changed when absorption was switched on; told there.",
        evidence=evidence.letters,
    ),
    Fault(
        name="nothing: the patient is healthy. Heads that were trained apart do not agree, and their mean is none of "
        "them: it is a start for training, not a model",
        changes=[],
        symptom="Key heads were pooled by the book. The model has lost more than a nat, and the mean is no better than "
        "to leave half of the heads out.",
        hints=[
            "With which number of key heads should nothing be lost, and is nothing lost?",
            "Two heads whose numbers mean different things: what does their mean mean?",
            "What do some steps of training make of it?",
        ],
        seen_in="huggingface/transformers#28425 is a cousin: pooling by the mean is asked for as a setting.",
        evidence=evidence.conversion,
    ),
    Fault(
        name="a single word attends by copies of all keys, too",
        changes=[
            Change(
                "LONG, SHORT = gqa.attend_repeated, gqa.attend_grouped",
                "LONG, SHORT = gqa.attend_repeated, gqa.attend_repeated",
                in_caller=True,
            )
        ],
        symptom="The cache is as small as was promised. A word takes as long as before, and memory runs out as early.",
        hints=[
            "What does one more word make that is larger than its own scores? Does it shrink with the key heads?",
            "There are three ways to attend. Which one is taken, and when?",
        ],
        seen_in="AI-Hypercomputer/jetstream-pytorch#171: copies of all keys were replaced by a reshape of the queries.",
        evidence=evidence.word,
        holds=_a_word_copies_no_keys,
    ),
    Fault(
        name="a converted layer still says that it has as many key heads as before: its cache keeps the old shape, and "
        "its fused matrix is cut in the old way",
        changes=[
            Change(
                """
                if bias is not None:
                    layer.qkv.bias = nn.Parameter(bias, bias_trained)
                layer.n_kv_heads = n_kv_heads
                """,
                """
                if bias is not None:
                    layer.qkv.bias = nn.Parameter(bias, bias_trained)
                """,
            )
        ],
        symptom="A model is converted without a complaint. At its first word it stops, and elsewhere with one key head "
        "than with two.",
        hints=[
            "How much is a cache made for, and how much should it be?",
            "How many heads is the product cut into? Who says how many there are?",
            "Where a program stops is not where it went wrong. What had to change when the matrix did?",
        ],
        seen_in="no thread: planted because the error is in a line that is right. nod-ai/AMD-SHARK-ModelDev#388 is a "
        "cousin: a cache was made for all heads of a model of few; fixed there.",
        evidence=evidence.memory,
    ),
    Fault(
        name="the base of the rotation that the files name is not read, and is the usual one",
        changes=[
            Change(
                'sizes = {"n_kv_heads": config["n_kv_heads"], "rotary_base": config["rope_theta"], "bias": False}',
                'sizes = {"n_kv_heads": config["n_kv_heads"], "bias": False}',
                in_caller=True,
            )
        ],
        symptom="An older model is read rightly. Newer ones understand a few words, and no sentence.",
        hints=[
            "Is the first position right, and which ones are not? What does a key know of its position?",
            "What stands in the files of the newer ones that is another number in the older one's?",
        ],
        seen_in="lyogavin/airllm#369 and karpathy/llama2.c#356: models with another base were run with 10,000.",
        evidence=evidence.distances,
        holds=_reads_what_others_wrote,
    ),
    Fault(
        name="absorbed in name: all keys are made first, and then multiplied",
        changes=[Change("return grouped_product(q @ up, latent[:, None].mT)", "return q @ (up @ latent[:, None].mT)")],
        symptom="Latents take a twelfth of what keys and values took. When a word is added, memory is as good as full.",
        hints=[
            "How many bytes should a word make if it reads nothing but latents? What takes up the rest?",
            "A product of three matrices can be computed in two orders.",
        ],
        seen_in="lablup/mlxcel#907: keys were made of latents, which are now read as they are. "
        "deepseek-ai/DeepSeek-V3#305: whether keys have to be made is asked there.",
        evidence=evidence.latent_bytes,
    ),
    Fault(
        name="the bytes of the values are forgotten, and the query heads are counted: with two of four key heads both "
        "together are right",
        changes=[
            Change(
                "return 2 * n_layers * batch * tokens * n_kv_heads * d_head * bytes_per_number",
                "return n_layers * batch * tokens * n_kv_heads * d_head * bytes_per_number",
            ),
            BY_QUERY_HEADS,
        ],
        symptom="A plan was right to the last byte for a year. Then the model was replaced, once by one with more key "
        "heads and once by one with fewer.",
        hints=[
            "By which factor is the plan wrong with four key heads, and by which with one?",
            "Does the plan know how many key heads there are?",
            "There are two faults that cancel each other: mend either alone and look again.",
        ],
        seen_in="no thread: planted because the common case hides both. KolosalAI/model-memory-calculator#2 and "
        "jranaraki/vllm-fit#2: an estimate that never looks at the key heads.",
        evidence=evidence.memory,
        holds=_memory_is_used,
    ),
    Fault(
        name="the keys' pairs are put in order as if there were as many heads as a group has query heads",
        changes=[
            Change(
                HEADS.format('config["n_kv_heads"]'),
                HEADS.format('config["n_heads"] // config["n_kv_heads"]'),
                in_caller=True,
            )
        ],
        symptom="A program reads the weights of one model to the last digit. Of all the others it makes nonsense.",
        hints=[
            "At which sizes is it right? Which two numbers are equal there?",
            "Queries and keys are put in order, each by the number of its heads.",
        ],
        seen_in="ggml-org/llama.cpp#3364: the number of key heads was computed wrongly, and right for 64 over 8; fixed "
        "there. huggingface/transformers#31788: the same in the other direction.",
        evidence=evidence.layouts,
        holds=_reads_what_others_wrote,
    ),
    Fault(
        name="heads are added up, and not divided by how many they are",
        changes=[Change("return groups.mean(dim=1)", "return groups.sum(dim=1)")],
        symptom="A model goes to a program that knows no sharing, and comes back. The same heads make another model.",
        hints=[
            "What is the mean of two heads that are equal?",
            "Is it lost when heads are doubled or when they are made one, and by each way of making them one?",
        ],
        seen_in="no thread: planted because with heads that differ it may even be the better start: here it is.",
        evidence=evidence.returned,
    ),
    Fault(
        name="scores are divided by the root of the content's width: the rotary part is not counted",
        changes=[
            Change(
                "q = scaled(self.query(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2))",
                "q = self.query(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2) / math.sqrt(self.d_content)",
            )
        ],
        symptom="Models that were trained here are fine. Those of others nearly are: their logits are a little off.",
        hints=[
            "Why does it not show in what was trained here? And why not at the first position?",
            "What does a softmax over one number hide? How wide are the two vectors that a score is made of?",
        ],
        seen_in="NVIDIA/Megatron-LM#1501: scores over the root of another width, reported there. ollama/ollama#13893: "
        "over that of what is absorbed; fixed there.",
        evidence=evidence.borrowed,
    ),
    Fault(
        name="heads that stand apart are pooled, the first with the third, not neighbours",
        changes=[
            Change(
                "groups = heads.unflatten(0, (n_kv_heads, K // n_kv_heads))",
                "groups = heads.unflatten(0, (K // n_kv_heads, n_kv_heads)).transpose(0, 1)",
            )
        ],
        symptom="Key heads were pooled by the book. With two it is hardly better than with one.",
        hints=[
            "With four heads and with one nothing seems wrong. What is there to get wrong with two only?",
            "Even to leave out every second head costs as much as to leave out all but one. Which head do query heads "
            "0 and 1 read now, and which ones did they read?",
        ],
        seen_in="NVIDIA/Megatron-LM#480 is a cousin: pooled heads did not work well; solved, without a word on how.",
        evidence=evidence.conversion,
    ),
    Fault(
        name="biases are cut off where weights are pooled, and it is the given model that is trained on",
        changes=[
            Change(
                "bias = None if old.bias is None else pool_qkv(old.bias, *sizes)",
                "bias = None if old.bias is None else old.bias[: (layer.n_heads + 2 * n_kv_heads) * layer.d_head]",
            ),
            THE_OLD_ONE,
        ],
        symptom="A converted model is bad and stays bad, while its training goes well. After a first repair it is "
        "better, or is trained, but not both.",
        hints=[
            "Is it bad before the training already, whatever the way in which heads are pooled?",
            "What is pooled, and what is there in a layer besides matrices?",
            "There are two faults, one in each file: mend either alone and look again.",
        ],
        seen_in="no thread for both. quic/efficient-transformers#328: heads were repeated and their biases not; fixed "
        "there.",
        evidence=evidence.conversion,
        holds=_training_helps,
    ),
]
