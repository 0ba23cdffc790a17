"""The faults of lesson 13: what ails each patient of its clinic, and its answer. Reading on spoils it.

Kinds: a line of the helper, of its caller, or a setting; two at once; nothing at all; and faults that pass every check,
each with the property that catches it.
"""

import math

import objectives_evidence as evidence
import objectives_seen as seen
import torch

from shared.clinic import Change, Fault


def _a_text_that_counts_is_learnt(helper, caller):
    """Logits that say "one more" have no loss in a text in which each word is one more; others have."""
    first, size = caller.VOCABULARY.words.start, caller.VOCABULARY.size
    tokens = torch.arange(first, first + 20)[None]
    batch = helper.causal(tokens, caller.VOCABULARY)
    table = torch.full((size, size), -50.0).index_put(
        (torch.arange(size - 1), torch.arange(1, size)), torch.tensor(50.0)
    )
    model = caller.new_model()
    with seen.answering(model, table[tokens]):
        found = float(caller.loss(model, *batch))
    if found > 1e-3:
        return f"words {first} to {first + 19}, and logits of 50 for one more: the loss is {found:.1f}"


def _only_words_are_written(helper, caller):
    """A model before its first step writes words alone."""
    tokens = next(caller.texts(0))
    hidden = caller.VOCABULARY.is_word(tokens)
    found = caller.fill(caller.new_model(), tokens, hidden)[hidden]
    if not caller.VOCABULARY.is_word(found).all():
        n = int((~caller.VOCABULARY.is_word(found)).sum())
        return f"{n} of {len(found)} ids that were written are not words"


def _a_text_is_masked_anew(helper, caller):
    """The same texts again are asked for other words."""
    batches = caller.asked("masked", repeated=1)
    first, second = next(batches), next(batches)
    if torch.equal(first.targets, second.targets):
        return f"of {int((first.targets >= 0).sum())} words that are asked for, all are asked for again"


def _parts_make_the_whole(helper, caller):
    """Sixteen parts give the gradient of the batch; float32 rounds sums of some hundred terms at 1e-6."""
    batch, model = caller.batch_of("causal", next(caller.texts(0))), caller.new_model()
    wanted, found = (torch.cat([it.flatten() for it in caller.gradients(model, batch, n)]) for n in (1, 16))
    if (gap := float((found - wanted).norm() / wanted.norm())) > 1e-3:
        return f"read in 16 parts the gradient is another one, by {100 * gap:.1f} % of its length"


def _uniform_answers_need_the_log_in_bits(helper, caller):
    """If all V ids are alike a word needs log2 V bits."""
    tokens = torch.full((1, 9), caller.VOCABULARY.words.start)
    word = caller.names()[caller.VOCABULARY.words.start]
    found = caller.bits_per_byte(seen.uniform(caller.new_model()), tokens)
    wanted = math.log2(caller.VOCABULARY.size) / len(f" {word}".encode())
    if abs(found - wanted) > 1e-4:
        return f"{caller.VOCABULARY.size} ids, all alike: {found:.4f} bits a byte of {word!r}, expected {wanted:.4f}"


def _middles_are_asked_as_in_training(helper, caller):
    """What stands before a middle's words is what stood there in training."""
    row = next(caller.texts(0))[0]
    batch = helper.fill_in_the_middle(row[None], torch.tensor([[7, 11]]), caller.VOCABULARY, caller.SUFFIX_FIRST)
    wanted = batch.inputs[0, : -4 - 1].tolist()  # without four words and the end
    found = caller.middle_prompt(row[:7].tolist(), row[11:].tolist())
    if found != wanted:
        return f"the prompt begins with ids {found[:6]}, in training the text begins with {wanted[:6]}"


def _some_words_are_asked_as_they_are(helper, caller):
    """In training some words are asked for that stand there as they are."""
    tokens = next(caller.texts(0))
    batch = caller.batch_of("masked", tokens, torch.Generator().manual_seed(0))
    asked = batch.targets >= 0
    same = int((batch.inputs[asked] == batch.targets[asked]).sum())
    if not same:
        return f"of {int(asked.sum())} words that are asked for, {same} stand there as they are"


FAULTS = [
    Fault(
        name="every word is asked for, the ones that can be seen too: seven of ten targets need only be copied",
        changes=[
            Change(
                "return ask(inputs, tokens, sees_all(tokens.shape[1]), vocabulary, chosen)",
                "return ask(inputs, tokens, sees_all(tokens.shape[1]), vocabulary)",
            )
        ],
        symptom="With masks the loss is soon far below that of all other objectives. Gaps are filled no better.",
        hints=["Of which words does the model know much, and of which little?", "Over which words is the loss a mean?"],
        seen_in="lucidrains/mlm-pytorch#3: the loss was that of all tokens; fixed there. "
        "EricFillion/happy-transformer#128: another number stood for what is to be ignored; fixed there.",
        evidence=evidence.masked,
    ),
    Fault(
        name="the loss shifts the targets, which were shifted already: each word is asked for the one after the next",
        changes=[
            Change(
                "return objectives.objective_loss(objectives.read(model, batch), batch)",
                """
                logits = objectives.read(model, batch)[:, :-1]
                batch = batch._replace(targets=batch.targets[:, 1:], weights=batch.weights[:, 1:])
                return objectives.objective_loss(logits, batch)
                """,
                in_caller=True,
            )
        ],
        symptom="The loss falls as far as one would think, a little more slowly. What is written is no English.",
        hints=["Read every second word.", "Which word does a position learn to foretell?"],
        seen_in="huggingface/transformers#47395 and huggingface/transformers#37830: labels were shifted twice; fixed "
        "there.",
        evidence=evidence.continued,
        holds=_a_text_that_counts_is_learnt,
    ),
    Fault(
        name="nothing: the patient is healthy. A random word is the same one by chance, with four words once in four",
        changes=[],
        symptom="One chosen word in ten should become another. With a small vocabulary it is fewer.",
        hints=["Among which words is a random one drawn?", "How often is one of four words drawn in place of itself?"],
        seen_in="no thread of this: planted because the shares are not those of the paper and all is well. "
        "huggingface/transformers#21803 is a cousin: a share was thought to be wrong, and the claim withdrawn.",
        evidence=evidence.fates,
    ),
    Fault(
        name="the prefix that is seen is one token longer than the one that is given: the first target is in sight",
        changes=[
            Change(
                "return sees_left(T) | (torch.arange(T) < lengths[:, None, None])",
                "return sees_left(T) | (torch.arange(T) <= lengths[:, None, None])",
            )
        ],
        symptom="Read at once, a text has one probability. Written word by word after its prefix it has another.",
        hints=[
            "Which word is answered for differently, and what is there to be seen in one case alone?",
            "How many columns are seen by all rows?",
        ],
        seen_in="no thread: planted because a loss that is too good is noticed last.",
        evidence=evidence.prefixes,
    ),
    Fault(
        name="texts are masked once, before they are read again and again: seven of ten words are never asked for",
        changes=[
            Change(
                """
                tokens = tokens if repeated is None else cycle(islice(tokens, repeated))
                return (batch_of(name, it, generator, rate) for it in tokens)
                """,
                """
                batches = (batch_of(name, it, generator, rate) for it in tokens)
                return batches if repeated is None else cycle(islice(batches, repeated))
                """,
                in_caller=True,
            )
        ],
        symptom="On few texts, read again and again, the training loss falls and falls. The same texts are not known.",
        hints=["What is asked when a text comes again?", "What is drawn anew, and what is kept?"],
        seen_in="no thread: planted because BERT's own data were masked beforehand, ten times each (RoBERTa, arXiv "
        "1907.11692, compares the two).",
        evidence=evidence.repeated,
        holds=_a_text_is_masked_anew,
    ),
    Fault(
        name="the whole batch is shifted as one row: the last word of a text foretells the first of the next",
        changes=[
            Change(
                "return F.pad(tokens[:, 1:], (0, 1), value=vocabulary.padding)",
                "return torch.cat([tokens.flatten()[1:], tokens.new_tensor([vocabulary.padding])]).view_as(tokens)",
            )
        ],
        symptom="A text is cut off after 48 words, in mid-sentence. What the model goes on with does not fit.",
        hints=["After which lengths is it sure, and of what?", "What stands behind the last word of a row, in memory?"],
        seen_in="huggingface/transformers#47394: targets leaked from one row of a batch to another; reported there.",
        evidence=evidence.cut_off,
    ),
    Fault(
        name="each part's mean is divided by the number of parts: a word of a short part counts more",
        changes=[
            Change(
                """
                asked = batch.weights.sum()
                for part in zip(*(each.chunk(n) for each in batch), strict=True):
                    part = objectives.Batch(*part)
                    (loss(model, *part) * part.weights.sum() / asked).backward()
                """,
                """
                for part in zip(*(each.chunk(n) for each in batch), strict=True):
                    part = objectives.Batch(*part)
                    (loss(model, *part) / n).backward()
                """,
                in_caller=True,
            )
        ],
        symptom="Gradients were added up over two parts of a batch, and over four: all is well. With more, it is not.",
        hints=["How many words has each part of four, and each of eight?", "When is a mean of means the mean?"],
        seen_in="huggingface/transformers#34191 and OpenNMT/OpenNMT-py#526: gradients over parts were not those of the "
        "batch; fixed there. huggingface/transformers#37766: the loss grew with the number of parts; reported there.",
        evidence=evidence.parts,
        holds=_parts_make_the_whole,
    ),
    Fault(
        name="random words are drawn from all ids after the mask: sentinels and marks come too",
        changes=[
            Change(
                "first, after_last = vocabulary.words.start, vocabulary.words.stop",
                "first, after_last = vocabulary.mask + 1, vocabulary.words.stop",
            )
        ],
        symptom="The objective is trained on plain stories. Its body knows tokens that no story has.",
        hints=["Which tokens of the text have not been in it before?", "Where do they come from: masked, or drawn?"],
        seen_in="no thread: planted because in most vocabularies special ids stand among the words' ids.",
        evidence=evidence.special,
    ),
    Fault(
        name="the sum of the losses is divided by all positions, not by those that are asked",
        changes=[
            Change(
                """
                total = batch.weights.sum()
                return (losses(logits, batch) * batch.weights).sum() / torch.where(total > 0, total, 1.0)
                """,
                "return (losses(logits, batch) * batch.weights).mean()",
            )
        ],
        symptom="Masking fewer words is better at once, before anything is learnt, and spans are better than causal.",
        hints=[
            "What should a model say that knows nothing?",
            "By how much is it too low, and of what is that a share?",
        ],
        seen_in="no thread: planted because the order of objectives by this loss is that of their numbers of targets. "
        "huggingface/transformers#34191 is a cousin: a mean over the wrong count.",
        evidence=evidence.untrained,
    ),
    Fault(
        name="the spans begin after as many tokens as the text had before they were cut out: the first are never asked",
        changes=[
            Change("lengths.append(len(kept))", "lengths.append(len(row))"),
        ],
        symptom="Spans are cut out and asked for, and the loss falls. The first gaps of a text stay hard to fill.",
        hints=[
            "Which gaps are filled badly, and are these harder?",
            "Where does the prefix end, and where do the spans begin?",
            "How long is a text without its spans?",
        ],
        seen_in="no thread: planted because nothing leaks and the loss says nothing.",
        evidence=evidence.gaps,
        example=True,
    ),
    Fault(
        name="nats are called bits",
        changes=[
            Change(
                'return nats / math.log(2) / sum(len(f" {word}".encode()) for word in said)',
                'return nats / sum(len(f" {word}".encode()) for word in said)',
                in_caller=True,
            )
        ],
        symptom="Our models need fewer bits a byte than those of others, who report the same loss a word.",
        hints=["How many bits has a word, if 200 of them are alike?", "In what is a cross entropy told here?"],
        seen_in="EleutherAI/lm-evaluation-harness#242: the bits for a byte were not in bits; fixed there.",
        evidence=evidence.bits,
        holds=_uniform_answers_need_the_log_in_bits,
    ),
    Fault(
        name="nothing: the patient is healthy. A text of which one word is masked weighs as much as one of which all "
        "are, and so chance has much to say",
        changes=[],
        symptom="The loss of diffusion jumps up and down to the end. That of causal training does not.",
        hints=["Does it jump if nothing is learnt?", "How many words bear a text's weight, if one of them is masked?"],
        seen_in="no thread: planted because a mean over rates that are drawn is noisy by itself.",
        evidence=evidence.noise,
    ),
    Fault(
        name="the random share is taken of what the masks left, not of all: 2 of 100 become random words",
        changes=[
            Change(
                "inputs = torch.where(chosen & (fate < mask_share + random_share), drawn, tokens)",
                "inputs = torch.where(chosen & (fate < mask_share + (1 - mask_share) * random_share), drawn, tokens)",
            )
        ],
        symptom="Random words were to teach the model to distrust what it reads. It hardly meets one.",
        hints=["Of what is each share a share?", "What comes out if nothing is masked?"],
        seen_in="huggingface/transformers#32329: a tenth of the rest, asked there. lucidrains/mlm-pytorch#6 and "
        "facebookresearch/fairseq#758: other wrong shares; fixed there.",
        evidence=evidence.fates,
    ),
    Fault(
        name="padding is asked for, and it is seen",
        changes=[
            Change(
                "right = real & (targets != vocabulary.padding)",
                "right = torch.ones_like(real)",
            ),
            Change(
                "seen = seen & real[:, None, :] | torch.eye(inputs.shape[1], dtype=torch.bool)",
                "seen = seen.expand(len(inputs), -1, -1)",
            ),
        ],
        symptom="The same four texts cost something else beside a longer one.",
        hints=[
            "Which way does each line go, and why not the same way?",
            "There are two faults: mend either alone and look again.",
        ],
        seen_in="no thread: planted because texts of one length hide both.",
        evidence=evidence.padding,
    ),
    Fault(
        name="of the ids that are not words padding alone is taken out: masks and sentinels are written",
        changes=[
            Change(
                "return logits.masked_fill(~VOCABULARY.is_word(torch.arange(VOCABULARY.size)), -math.inf)",
                "return logits.masked_fill(torch.arange(VOCABULARY.size) == PAD, -math.inf)",
                in_caller=True,
            )
        ],
        symptom="Texts are filled in, word by word. Now and then what is written is no word.",
        hints=["Which ids has the model a logit for?", "Why is it rarer after more training, and never gone?"],
        seen_in="no thread: planted because training makes it rare. Sahoo et al. 2024 (arXiv 2406.07524) set the "
        "probability of a mask to 0.",
        evidence=evidence.filled,
        holds=_only_words_are_written,
    ),
    Fault(
        name="if nothing is asked the sum is divided by 0: one step without a mask ends the training",
        changes=[
            Change(
                "return (losses(logits, batch) * batch.weights).sum() / torch.where(total > 0, total, 1.0)",
                "return (losses(logits, batch) * batch.weights).sum() / total",
            )
        ],
        symptom="A training runs for a thousand steps, another for six. The seed decides.",
        hints=["Which rates are in danger?", "What may a batch be without?"],
        seen_in="huggingface/transformers#16711: NaN if no token is masked; discussed there.",
        evidence=evidence.rare,
    ),
    Fault(
        name="the prompt has the other order: prefix first, after a training with the suffix first",
        changes=[
            Change(
                "return [PREFIX, SUFFIX, *after, MIDDLE, *before] if SUFFIX_FIRST else "
                "[PREFIX, *before, SUFFIX, *after, MIDDLE]",
                "return [PREFIX, *before, SUFFIX, *after, MIDDLE]",
                in_caller=True,
            )
        ],
        symptom="A model has learnt to fill in the middle. It writes as if it had not read what stands before.",
        hints=["Where did the words before the gap stand in training?", "Which word stands right before the middle?"],
        seen_in="no thread: planted because all marks are there, each before its part.",
        evidence=evidence.middles,
        holds=_middles_are_asked_as_in_training,
    ),
    Fault(
        name="all rows are read by the mask of the first",
        changes=[
            Change(
                "seen = batch.seen[:, None]",
                "seen = batch.seen[0]",
            )
        ],
        symptom="What is answered to a text depends on which text is the first of its batch.",
        hints=["Which text is answered as if it were alone?", "Whose prefix is whose?"],
        seen_in="no thread: planted because causal masks are all alike.",
        evidence=evidence.neighbours,
    ),
    Fault(
        name="targets are taken from the inputs, after the words were masked: a mask is asked for at each mask",
        changes=[
            Change(
                "return ask(inputs, tokens, sees_all(tokens.shape[1]), vocabulary, hidden)",
                "return ask(inputs, inputs, sees_all(tokens.shape[1]), vocabulary, hidden)",
            )
        ],
        symptom="Diffusion is learnt in a dozen steps, to the last digit. It writes nothing that fits.",
        hints=["What would be right to answer in every such training?", "From what are the targets taken, and when?"],
        seen_in="no thread: planted because its loss is the best that there is.",
        evidence=evidence.diffusion,
    ),
    Fault(
        name="a setting: all chosen words become masks, so that the model is never asked about a word that it sees",
        changes=[Change("MASK_SHARE, RANDOM_SHARE = 0.8, 0.1", "MASK_SHARE, RANDOM_SHARE = 1.0, 0.0", in_caller=True)],
        symptom="A model fills gaps as well as any. Of the words that it takes for mistakes, too many are right.",
        hints=["What has it learnt to do with a word that is no mask?", "Which words were targets in training?"],
        seen_in="no thread: planted because the loss does not show it.",
        evidence=evidence.doubted,
        holds=_some_words_are_asked_as_they_are,
    ),
    Fault(
        name="batches' means are averaged: a word of a batch with few counts more",
        changes=[
            Change(
                """
                total += float((losses(read(model, batch), batch) * batch.weights).sum())
                weight += float(batch.weights.sum())
                """,
                """
                if batch.weights.sum() > 0:
                    total += float(objective_loss(read(model, batch), batch))
                    weight += 1
                """,
            )
        ],
        symptom="How good a model is depends on how many texts are read at a time.",
        hints=["At which numbers do all batches have as many words?", "What is added up, and by what is it divided?"],
        seen_in="huggingface/transformers#41898: the loss of an evaluation was inaccurate; reported there.",
        evidence=evidence.sizes,
    ),
    Fault(
        name="targets are not shifted: each position is asked for the word that it is given",
        changes=[
            Change(
                "return ask(tokens, next_tokens(tokens, vocabulary), sees_left(tokens.shape[1]), vocabulary)",
                "return ask(tokens, tokens, sees_left(tokens.shape[1]), vocabulary)",
            )
        ],
        symptom="Nothing is as easy as causal training: a few dozen steps, and there is nothing more to learn.",
        hints=["What does the model write, and from where has it that word?", "What is asked for at a position?"],
        seen_in="huggingface/transformers#27517: the loss of a model whose labels were not shifted; asked there.",
        evidence=evidence.continued,
    ),
]
