"""The faults of lesson 02: what ails each patient of its clinic, and its answer. Reading on spoils it."""

from shared.clinic import Change, Fault

FAULTS = [
    Fault(
        name="the exponent lost",
        changes=[Change("raised = frequency**power", "raised = frequency")],
        symptom="the most frequent words drift away from everything; the rest looks as ever",
        hints=["what are 1, 16 and 81 to the power 0.75?", "is every argument used?"],
        seen_in="Andras7/word2vec-pytorch#7 (0.5 there, on purpose), piskvorky/gensim#1810 (fixed in the code at 0.75)",
    ),
    Fault(
        name="negatives drawn evenly",
        changes=[
            Change(
                "return torch.searchsorted(ends, points, right=True).clamp(max=len(noise) - 1)",
                "return torch.randint(len(noise), (n,), generator=generator)",
            )
        ],
        symptom="rare words are everybody's negatives, as often as frequent ones",
        hints=["count which words are drawn", "where do the shares enter?"],
        seen_in="wangzhegeek/EGES#25 (negatives drawn uniformly, asked about)",
    ),
    Fault(
        name="the window always full",
        changes=[Change("seen = reach[centre] >= distance", "seen = reach[centre] > 0")],
        symptom="words five places away count as much as neighbours",
        hints=["how often is a word three places away a context?", "each centre draws something: is it compared?"],
        seen_in="piskvorky/gensim#3159 (asked for as an option, and now is one, shrink_windows)",
    ),
    Fault(
        name="a reach that falls one short",
        changes=[
            Change(
                "reach = torch.randint(1, window + 1, ids.shape, generator=generator)",
                "reach = torch.randint(1, max(window, 2), ids.shape, generator=generator)",
            )
        ],
        symptom="the farthest words of a window are never seen",
        hints=["what is the largest number that randint(1, 5) gives?"],
        seen_in="Andras7/word2vec-pytorch#10 (the right end of the window)",
    ),
    Fault(
        name="one table for both",
        changes=[
            Change(
                "_, dw, dc, dn = negative_gradients(w[centres], c[contexts], c[negatives])",
                "_, dw, dc, dn = negative_gradients(w[centres], w[contexts], w[negatives])",
            )
        ],
        symptom="it trains, its lists are worse than yours, and the second table hardly means anything",
        hints=["which table holds a word as a context?", "follow what is looked up, and what is moved"],
        seen_in="chaklam-silpasuwanchai/Python-fo-Natural-Language-Processing#6",
    ),
    Fault(
        name="sub-sampling inverted",
        changes=[
            Change(
                "return [ids[torch.rand(len(ids), generator=generator) < keep[ids]] for ids in sentences]",
                "return [ids[torch.rand(len(ids), generator=generator) > keep[ids]] for ids in sentences]",
            )
        ],
        symptom="only frequent words are left, and the rare ones keep their first vectors",
        hints=["is the table the chance to keep, or to drop?"],
        seen_in="facebookresearch/fastText#150 (where the table of chances to keep is called pdiscard)",
    ),
    Fault(
        name="shares of the wrong total",
        changes=[
            Change(
                "ratio = threshold / (frequency / frequency.sum())", "ratio = threshold / (frequency / len(frequency))"
            )
        ],
        symptom="how much is thinned out depends on how long the text is",
        hints=["make the text ten times as long", "a share of what?"],
        seen_in="deeplearning4j/deeplearning4j#928, zhezhaoa/ngram2vec#7",
    ),
    Fault(
        name="the sum inside the logarithm",
        changes=[
            Change(
                "loss = -F.logsigmoid(score) - F.logsigmoid(-scores).sum(dim=-1)",
                "loss = -F.logsigmoid(score) - F.logsigmoid(-scores.sum(dim=-1))",
            )
        ],
        symptom="the loss looks better than it is: one negative far away makes up for others that are close",
        hints=["take two negatives with scores 3 and -3", "are k = 1 and k = 2 wrong alike?"],
        seen_in="DSKSD/DeepNLP-models-Pytorch#15",
    ),
    Fault(
        name="negatives pulled closer",
        changes=[
            Change(
                "d_scores = scores.sigmoid()  # positive: each negative is pushed away",
                "d_scores = scores.sigmoid() - 1",
            )
        ],
        symptom="all words move to the same place",
        hints=["what is a negative's label?", "the sign of d_scores says which way a negative goes"],
        seen_in="piskvorky/gensim#653 (the label's sign was the same for every target)",
    ),
    Fault(
        name="updates that are lost",
        changes=[
            Change(
                "table.index_add_(0, rows, slopes * (-rate / squares[rows].sqrt())[:, None])",
                "table[rows] -= slopes * (rate / squares[rows].sqrt())[:, None]",
            )
        ],
        symptom="frequent words learn slowly: of all their slopes in a batch, one counts",
        hints=["put one word into a batch twice", "what does table[[1, 1]] -= 1 do?"],
        seen_in="numpy/numpy#8866, pytorch/pytorch#3844, pymc-devs/pytensor#2242",
    ),
    Fault(
        name="updates that are not stored",
        changes=[
            Change(
                "table.index_add_(0, rows, slopes * (-rate / squares[rows].sqrt())[:, None])",
                "table.index_add(0, rows, slopes * (-rate / squares[rows].sqrt())[:, None])",
            )
        ],
        symptom="the vectors are those of the start",
        hints=["compare the table before and after", "which functions of PyTorch change their tensor?"],
        seen_in="piskvorky/gensim#386 (a leftover condition skipped every update)",
    ),
    Fault(
        name="a cosine with one length",
        changes=[Change("return _unit(a) @ _unit(b).T", "return _unit(a) @ b.T")],
        symptom="the same long vectors are everybody's nearest",
        hints=["make one vector ten times as long", "which of the two sides is divided by its length?"],
        seen_in="plasticityai/magnitude#57, explosion/spaCy#522",
    ),
    Fault(
        name="its own nearest neighbour",
        changes=[Change("scores[query] = -torch.inf", "scores[0] = -torch.inf")],
        symptom="every word is most similar to itself",
        hints=["look at the first answer"],
        seen_in="deeplearning4j/deeplearning4j#821, plasticityai/magnitude#29",
    ),
    Fault(
        name="king is to king",
        changes=[Change("scores.scatter_(1, given, -torch.inf)", "scores.scatter_(1, given[:, ::2], -torch.inf)")],
        symptom="man is to king as woman is to king",
        hints=["which of the three given words comes back?"],
        seen_in="deeplearning4j/deeplearning4j#2905",
    ),
    Fault(
        name="CBOW: every neighbour gets it all",
        changes=[
            Change("share = d_mean / contexts.shape[1]  # each neighbour is one m-th of the mean", "share = d_mean")
        ],
        symptom="the wider the window, the larger the steps",
        hints=["by how much does the mean move when one of m vectors moves by 1?"],
        seen_in="piskvorky/gensim#1873 and #3266 (disputed: word2vec.c does the same)",
    ),
]
