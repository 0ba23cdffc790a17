"""The faults of lesson 02: what ails each patient of its clinic, and its answer. Reading on spoils it.

Kinds: a line of the helper, of its caller, or a setting; two at once; nothing at all; and faults that pass every check,
each with the property that catches it.
"""

import skipgram_evidence as evidence
import torch

from shared.clinic import Change, Fault


def _looking_changes_nothing(helper, caller):
    """Vectors are as they were after nearest words were looked up."""
    vectors = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    before = vectors.clone()
    helper.nearest(vectors, 0, 3)
    gap = (vectors - before).abs().max().item()
    return None if gap == 0 else f"looking a word up changed the vectors by up to {gap:.2f}"


def _passes_differ(helper, caller):
    """A second pass over a text draws other reaches than the first."""
    steps = evidence.recorded(helper, [torch.arange(9)] * 50, 9, window=5, epochs=2, batch=10**6)
    one, other = (torch.bincount(9 * given[3] + given[4], minlength=81) for given in steps)
    return "the second pass has the very pairs of the first" if torch.equal(one, other) else None


def _alone_as_in_company(helper, caller):
    """A document's row does not depend on what it is embedded beside."""
    words = ["a", "b", "c"]
    index = caller.Index(words, torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.0, 5.0]]))
    short, long = [["b"]], [["a", "b", "c", "c", "a"]]
    gap = (index.embed([short, long])[0] - index.embed([short])[0]).abs().max().item()
    return None if gap < 1e-6 else f"beside a longer document its row is another one, by up to {gap:.2f}"


def _comes_back(helper, caller):
    """What is written is read: the same words with the same vectors, to three digits."""
    words, vectors = ["one", "two", "ten"], torch.tensor([[1.2345, -2.0], [0.03456, 4.0], [5.0, 0.5]])
    found, read = caller.read(caller.write(words, vectors))
    if found != words:
        return f"words {words} were written, {found} were read"
    gap = ((read - vectors) / vectors).abs().max().item()
    return None if gap < 1e-3 else f"a number came back {gap:.0%} off"


def _old_words_keep_theirs(helper, caller):
    """After new documents an old word has the vector that it had."""
    words, w = ["x", "b"], torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    more, larger = caller.grow(words, w, [[["a", "b"]] * caller.LEAST])
    rows = torch.stack([larger[more.index(word)] for word in words])
    return None if torch.equal(rows, w) else f"the vectors of {words} were {w.tolist()} and are {rows.tolist()}"


def _sentences_stay_apart(helper, caller):
    """No pair reaches from one sentence into another."""
    rows = caller.numbered([[["a", "b"], ["c"]], [["a"]]], ["a", "b", "c"])
    found = [row.tolist() for row in rows]
    return None if found == [[0, 1], [2], [0]] else f"the sentences a b. c. and a. became rows {found}"


def _most_is_read(helper, caller):
    """Of the words of the program's own documents four in ten are read, or more."""
    _, _, frequency = evidence.sentences_of(caller)
    keep = helper.keep_probability(frequency, caller.THRESHOLD)
    share = ((keep * frequency).sum() / frequency.sum()).item()
    return None if share > 0.4 else f"{share:.0%} of the words are kept"  # healthy: 65 %


LEFT = "left = 1 - (epoch + i / len(order)) / epochs"
SCALED = "rows = rows / rows.abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)"
MEAN = "return (self.vectors[padded] * real[..., None]).sum(dim=1) / sizes.clamp(min=1)[:, None]"
REACH = "reach = torch.randint(1, window + 1, ids.shape, generator=generator)"
SHORT = Change(REACH, "reach = torch.randint(1, max(window, 2), ids.shape, generator=generator)")
PADDED = Change(MEAN, "return self.vectors[padded].mean(dim=1)", in_caller=True)
UNSORTED = "return [row[0] for row in rows], torch.tensor([[float(x) for x in row[1:]] for row in rows])"
SORTED = "return sorted(row[0] for row in rows), torch.tensor([[float(x) for x in row[1:]] for row in rows])"
ADD = "return table.index_add_(0, rows, slopes * (-rate / squares[rows].sqrt())[:, None])"

FAULTS = [
    Fault(
        name="the power 0.75 is taken and never used: negatives come by plain frequency",
        changes=[Change("raised = frequency**power", "raised = frequency")],
        symptom="Rare words are among the negatives less often than they should be, common ones more often.",
        hints=["Divide a band's share of the negatives by its share of the text. What should that be for rare words?"],
        seen_in="Andras7/word2vec-pytorch#7 (0.5 there, on purpose), piskvorky/gensim#1810 (fixed in the code at 0.75)",
        evidence=evidence.drawn,
    ),
    Fault(
        name="negatives are drawn evenly, whatever their shares",
        changes=[
            Change(
                "return torch.searchsorted(ends, points, right=True).clamp(max=len(noise) - 1)",
                "return (points / ends[-1] * len(noise)).long().clamp(max=len(noise) - 1)",
            )
        ],
        symptom="The commonest words of the text are hardly among those that pairs are compared with.",
        hints=["How many words are there in each band, and what share of all words is that?", "Where do shares enter?"],
        seen_in="wangzhegeek/EGES#25 (negatives drawn uniformly, asked about)",
        evidence=evidence.drawn,
    ),
    Fault(
        name="the window is always full: the reach is drawn and not compared",
        changes=[Change("seen = reach[centre] >= distance", "seen = reach[centre] > 0")],
        symptom="A word at the window's edge counts as much as one next to the centre.",
        hints=["Each centre draws something. Is it compared with anything?"],
        seen_in="piskvorky/gensim#3159 (asked for as an option, and now is one, shrink_windows)",
        evidence=evidence.reached,
    ),
    Fault(
        name="the reach falls one short: randint leaves its upper end out",
        changes=[SHORT],
        symptom="Somebody asked for a window of five words and gets less.",
        hints=["What is the largest number that randint(1, 5) gives?"],
        seen_in="Andras7/word2vec-pytorch#10 (the right end of the window)",
        evidence=evidence.reached,
    ),
    Fault(
        name="all slopes of a row are worked out, and only one of them is subtracted",
        changes=[
            Change(
                ADD,
                """
                table[rows] -= slopes * (rate / squares[rows].sqrt())[:, None]
                return table
                """,
            )
        ],
        symptom="Common words learn hardly more than rare ones.",
        hints=["Put one word into a batch twice.", "What does table[[1, 1]] -= 1 do?"],
        seen_in="numpy/numpy#8866, pytorch/pytorch#3844, pymc-devs/pytensor#2242",
        evidence=evidence.moved,
        example=True,
    ),
    Fault(
        name="nothing: the patient is healthy. Contexts begin at zero, so every score is 0 and each of six answers "
        "costs log 2, whatever the text: 6 log 2 = 4.159",
        changes=[],
        symptom="Whatever it is given to read, it begins at the same loss, to the third digit.",
        hints=["What are the scores before the first step?", "What is 4.159 / 6?"],
        seen_in="no thread: it is what `start` gives",
        evidence=evidence.first_losses,
    ),
    Fault(
        name="contexts and negatives are looked up in the table of centres, and moved in the other one",
        changes=[
            Change(
                "_, dw, dc, dn = negative_gradients(w[centres], c[contexts], c[negatives])",
                "_, dw, dc, dn = negative_gradients(w[centres], w[contexts], w[negatives])",
            )
        ],
        symptom="It trains, and its lists of words are far worse than they should be.",
        hints=["Which table holds a word as a context?", "Follow what is looked up, and what is moved."],
        seen_in="chaklam-silpasuwanchai/Python-fo-Natural-Language-Processing#6",
        evidence=evidence.learning,
    ),
    Fault(
        name="sub-sampling is upside down: it keeps what should go",
        changes=[
            Change(
                "return [ids[torch.rand(len(ids), generator=generator) < keep[ids]] for ids in sentences]",
                "return [ids[torch.rand(len(ids), generator=generator) > keep[ids]] for ids in sentences]",
            )
        ],
        symptom="It has read the text, and its vectors are those that it began with.",
        hints=["Which words have moved, and which share of their occurrences is to be kept?"],
        seen_in="facebookresearch/fastText#150 (where the table of chances to keep is called pdiscard)",
        evidence=evidence.moved,
    ),
    Fault(
        name="a word's count is divided by how many words there are in the vocabulary, not in the text",
        changes=[
            Change(
                "ratio = threshold / (frequency / frequency.sum())", "ratio = threshold / (frequency / len(frequency))"
            )
        ],
        symptom="The longer the text, the less of it is read.",
        hints=["A share of what?", "Make the text ten times as long. Which side of the fraction grows?"],
        seen_in="deeplearning4j/deeplearning4j#928, zhezhaoa/ngram2vec#7",
        evidence=evidence.thinned,
    ),
    Fault(
        name="a document's mean goes over its padding, which is word 0",
        changes=[PADDED],
        symptom="The same short document is at different places in the index, by what was added with it.",
        hints=["What stands in a row behind its own words?", "By how many words is the sum divided?"],
        seen_in="HKUDS/LightRAG#3675 (a mean over padding, mended there)",
        evidence=evidence.neighbours_in_batch,
        holds=_alone_as_in_company,
    ),
    Fault(
        name="the negatives' scores are added up before the logarithm; the gradient is right",
        changes=[
            Change(
                "loss = -F.logsigmoid(score) - F.logsigmoid(-scores).sum(dim=-1)",
                "loss = -F.logsigmoid(score) - F.logsigmoid(-scores.sum(dim=-1))",
            )
        ],
        symptom="The loss is not what others get with the same vectors. The vectors themselves are as good as ever.",
        hints=["Two negatives with scores 3 and -3: what may each cost?", "Are one negative and two wrong alike?"],
        seen_in="DSKSD/DeepNLP-models-Pytorch#15",
        evidence=evidence.slopes,
    ),
    Fault(
        name="negatives are pulled closer, like true contexts",
        changes=[Change("d_scores = scores.sigmoid()", "d_scores = -(-scores).sigmoid()")],
        symptom="It learns nothing, and its loss grows.",
        hints=["What is a negative's label?", "The sign of a slope says which way the score goes."],
        seen_in="piskvorky/gensim#653 (the label's sign was the same for every target)",
        evidence=evidence.learning,
    ),
    Fault(
        name="the logarithm is taken of the softmax's result, which rounds to 0",
        changes=[
            Change("log_p = (w[centres] @ c.T).log_softmax(dim=-1)", "log_p = (w[centres] @ c.T).softmax(dim=-1).log()")
        ],
        symptom="The full softmax trains for a while. Then its loss is infinite.",
        hints=["What is the smallest number above 0 in float32?", "What is e to the power -104?"],
        seen_in="deeplearning4j/nd4j#458 (a loss that underflowed takes the logarithm with the softmax; merged there)",
        evidence=evidence.gaps,
    ),
    Fault(
        name="a search scales the vectors that it is given, in place",
        changes=[Change(SCALED, SCALED.replace("rows = rows / ", "rows /= "))],
        symptom="After somebody looked a word up the model has another loss. What it answers is right.",
        hints=["What has changed in the model between the two losses?", "Which operators write into their tensor?"],
        seen_in="deeplearning4j/deeplearning4j#3285 (wordsNearest normalised the stored vectors)",
        evidence=evidence.used,
        holds=_looking_changes_nothing,
    ),
    Fault(
        name="one of the two vectors is not divided by its length",
        changes=[Change("return _unit(a) @ _unit(b).T", "return _unit(a) @ b.T")],
        symptom="A few words are near to everything.",
        hints=["What do the favourites have in common?", "Is a as near to b as b to a?"],
        seen_in="plasticityai/magnitude#57, explosion/spaCy#522",
        evidence=evidence.hubs,
    ),
    Fault(
        name="one of the three given words may be the answer",
        changes=[Change("scores.scatter_(1, given, -torch.inf)", "scores.scatter_(1, given[:, :2], -torch.inf)")],
        symptom="Its analogies find what one has just told it.",
        hints=["Which of the three comes back?"],
        seen_in="deeplearning4j/deeplearning4j#2905",
        evidence=evidence.analogies,
    ),
    Fault(
        name="each of a CBOW window's words is given the whole slope of their mean",
        changes=[Change("share = d_mean / contexts.shape[1]", "share = d_mean")],
        symptom="CBOW takes small windows and overshoots with large ones.",
        hints=["By how much does the mean of m vectors move if one of them moves by 1?"],
        seen_in="piskvorky/gensim#1873 and #3266 (disputed: word2vec.c does the same)",
        evidence=evidence.windows,
    ),
    Fault(
        name="nothing: the patient is healthy. A space may be turned without a change of any dot product, so two runs' "
        "numbers have nothing to do with each other; which words are near is what they share",
        changes=[],
        symptom="Trained with two seeds on one text, it gives a word two vectors that are nearly at a right angle.",
        hints=["Turn all vectors, w and c, by the same rotation. What does the loss say?"],
        seen_in="deeplearning4j/deeplearning4j#699 is a relative: vectors that vary from run to run.",
        evidence=evidence.two_runs,
    ),
    Fault(
        name="pairs are drawn once, before the first pass, and used in every pass",
        changes=[
            Change(
                """
                for epoch in range(epochs):
                    centres, contexts = pairs(subsample(sentences, keep, generator), window, generator)
                """,
                """
                centres, contexts = pairs(subsample(sentences, keep, generator), window, generator)
                for epoch in range(epochs):
                """,
            )
        ],
        symptom="However often it reads the text, there are words next to each other that never become a pair.",
        hints=["What differs between the first pass and the second?", "What is drawn, and when?"],
        seen_in="no thread",
        evidence=evidence.batches,
        holds=_passes_differ,
    ),
    Fault(
        name="each pass over the text begins at the full rate",
        changes=[Change(LEFT, "left = 1 - i / len(order)")],
        symptom="In its last passes it still takes steps as long as in the first.",
        hints=["Of what is `left` the share that is left?"],
        seen_in="deeplearning4j/deeplearning4j#3278 (a log there shows the rate begin anew with each epoch)",
        evidence=evidence.batches,
    ),
    Fault(
        name="a threshold of 0, which is to turn thinning off, drops every word",
        changes=[
            Change(
                """
                if threshold == 0:
                    return torch.ones_like(frequency / 1)
                ratio = threshold / (frequency / frequency.sum())
                """,
                "ratio = threshold / (frequency / frequency.sum())",
            )
        ],
        symptom="With sub-sampling off nothing is learned.",
        hints=["What is the chance to keep a word at a threshold of 0, by the formula?"],
        seen_in="piskvorky/gensim#1238 (fastText with -t 0: the model stays as it began)",
        evidence=evidence.unthinned,
    ),
    Fault(
        name="words are read in alphabetical order, their vectors in the file's",
        changes=[Change(UNSORTED, SORTED, in_caller=True)],
        symptom="The model was good when it was saved.",
        hints=["Are the numbers those that were written?", "Which vector has which word now?"],
        seen_in="bheinzerling/bpemb#7 (vectors in another order than the vocabulary), delip/PyTorchNLPBook#22",
        evidence=evidence.kept_in_a_file,
        holds=_comes_back,
    ),
    Fault(
        name="with new documents the words are put into a new order, their vectors stay in the old one",
        changes=[
            Change(
                "return [*known, *(word for word in new if word not in set(known))]",
                "return sorted({*known, *new}, key=lambda word: (-counts[word], word))",
                in_caller=True,
            )
        ],
        symptom="New documents came, and old words have lost their meaning.",
        hints=["Is an old word's vector among the new ones, and where?"],
        seen_in="bheinzerling/bpemb#7 is a relative: vectors in another order than the vocabulary",
        evidence=evidence.grown,
        holds=_old_words_keep_theirs,
    ),
    Fault(
        name="a document is one row: windows reach over full stops",
        changes=[
            Change(
                "rows = [[ids[word] for word in sentence if word in ids] for text in texts for sentence in text]",
                "rows = [[ids[word] for sentence in text for word in sentence if word in ids] for text in texts]",
                in_caller=True,
            )
        ],
        symptom="Of the same documents it makes a third more pairs than it should.",
        hints=["How long is the longest row? How long is a sentence?"],
        seen_in="tensorflow/models#2521 (sentences joined to one long list of words, asked about there)",
        evidence=evidence.company,
        holds=_sentences_stay_apart,
    ),
    Fault(
        name="a threshold for a thousand million words on a text of twenty-five thousand",
        changes=[
            Change("EPOCHS, RATE, THRESHOLD = 8, 0.3, 1e-2", "EPOCHS, RATE, THRESHOLD = 8, 0.3, 1e-5", in_caller=True)
        ],
        symptom="It was set as a large model was set, and learns next to nothing.",
        hints=["How many of the text's words does it read?", "Which share has a word that occurs once in this text?"],
        seen_in="piskvorky/gensim#1238 is a relative: which thresholds are useful is asked there",
        evidence=evidence.learning,
        holds=_most_is_read,
    ),
    Fault(
        name="numbers are written with one digit",
        changes=[Change("DIGITS = 6", "DIGITS = 1", in_caller=True)],
        symptom="The file is small, and what is read from it is not quite what was written.",
        hints=["By how much do the numbers differ, and by which part of themselves?"],
        seen_in="no thread",
        evidence=evidence.kept_in_a_file,
        holds=_comes_back,
    ),
    Fault(
        name="nothing: the patient is healthy. A negative is drawn without a look at the pair; that it may be the true "
        "context is in the formula, and in what it converges to",
        changes=[],
        symptom="It punishes true pairs: some negatives are the very context that they stand beside.",
        hints=["What is a word's chance to be drawn?", "What would the optimum be if true contexts were left out?"],
        seen_in="theeluwin/pytorch-sgns#9 (asked there)",
        evidence=evidence.true_negatives,
    ),
    Fault(
        name="where several words are equally near, the first of them counts alone",
        changes=[
            Change(
                "best = (others == others.amax(dim=1, keepdim=True)).double()",
                "best = torch.eye(len(others), dtype=torch.float64)[others.argmax(dim=1)]",
            )
        ],
        symptom="How much one-hot vectors know depends on the order of the words.",
        hints=["Which words are nearest to a one-hot vector? Which one does argmax give?"],
        seen_in="no thread",
        evidence=evidence.sorted_lists,
    ),
    Fault(
        name="two faults: words are read in alphabetical order and vectors are not; and the reach falls one short",
        changes=[Change(UNSORTED, SORTED, in_caller=True), SHORT],
        symptom="Its lists are nonsense once it has been saved. With that mended it still makes too few pairs.",
        hints=["Look at the lists before it is saved, and after.", "How far does a window of 3 reach?"],
        seen_in="bheinzerling/bpemb#7 and Andras7/word2vec-pytorch#10, one of each",
        evidence=evidence.saved_and_reached,
        holds=_comes_back,
    ),
    Fault(
        name="two faults: a document's mean goes over its padding; and one of two vectors is not divided by its length",
        changes=[PADDED, Change("return _unit(a) @ _unit(b).T", "return a @ _unit(b).T")],
        symptom="Asked with the first half of a document, it hardly ever finds the document.",
        hints=["Which of the two a check sees, and which of the two none?"],
        seen_in="HKUDS/LightRAG#3675 and plasticityai/magnitude#57, one of each",
        evidence=evidence.meaning_search,
        holds=_alone_as_in_company,
    ),
]
