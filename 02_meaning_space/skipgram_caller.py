"""A program around skipgram.py: it learns words from stories, writes the vectors down, and finds stories by meaning.

`learn` makes vectors of a text. `write` and `read` keep them in a file as word2vec's are: a line with the two sizes,
then a line for each word. `grow` goes on with a later text, in which there are new words. `Index` finds documents.
"""

from collections import Counter

import skipgram
import torch

from shared.world import Config, split, stories

STORIES, LEAST = 800, 5  # documents to learn from; how often a word must occur to get a vector
D, WINDOW, NEGATIVES = 16, 3, 5
EPOCHS, RATE, THRESHOLD = 8, 0.3, 1e-2
DIGITS = 6  # of a number in a file


def documents(n, seed):
    """n stories and lists of facts, each a list of sentences, which are lists of words."""
    found = []
    for story in stories(n, seed, Config(story=1, facts=8)):
        sentences = [[]]
        for word in split(story.text):
            if word in (".", "?"):
                sentences.append([])
            elif word.strip():
                sentences[-1].append(word)
        found.append([sentence for sentence in sentences if sentence])
    return found


def vocabulary(texts, known=()):
    """The words that are known, in their order, then others that occur LEAST times, frequent ones first."""
    counts = Counter(word for text in texts for sentence in text for word in sentence)
    new = sorted((word for word, n in counts.items() if n >= LEAST), key=lambda word: (-counts[word], word))
    return [*known, *(word for word in new if word not in set(known))]


def numbered(texts, words):
    """All sentences of some documents as ids; words without a vector are left out."""
    ids = {word: i for i, word in enumerate(words)}
    rows = [[ids[word] for word in sentence if word in ids] for text in texts for sentence in text]
    return [torch.tensor(row, dtype=torch.long) for row in rows]


def learn(texts, seed=0, epochs=EPOCHS):
    """The words of some documents, and their vectors: w (V, D), c (V, D)."""
    words = vocabulary(texts)
    settings = dict(window=WINDOW, k=NEGATIVES, epochs=epochs, rate=RATE, threshold=THRESHOLD, seed=seed)
    return words, *skipgram.train(numbered(texts, words), len(words), D, **settings)


def loss(texts, words, w, c, seed=0):
    """Nats a pair of some documents, each pair beside NEGATIVES words by chance."""
    sentences, generator = numbered(texts, words), torch.Generator().manual_seed(seed)
    centres, contexts = skipgram.pairs(sentences, WINDOW, generator)
    frequency = torch.bincount(torch.cat(sentences), minlength=len(words)).double()
    noise = skipgram.noise_distribution(frequency)
    drawn = skipgram.draw_negatives(noise, NEGATIVES * len(centres), generator).view(-1, NEGATIVES)
    return skipgram.negative_gradients(w[centres], c[contexts], c[drawn])[0].mean().item()


def write(words, vectors):
    """The text of a file."""
    rows = [
        " ".join([word, *(f"{x:.{DIGITS}g}" for x in row)]) for word, row in zip(words, vectors.tolist(), strict=True)
    ]
    return "\n".join([f"{len(words)} {vectors.shape[1]}", *rows])


def read(text):
    """Words and vectors of a file's text."""
    rows = [line.split(" ") for line in text.split("\n")[1:]]
    return [row[0] for row in rows], torch.tensor([[float(x) for x in row[1:]] for row in rows])


def grow(words, w, texts, seed=0):
    """The words with those that are new in some documents, and a vector for each: old words keep theirs."""
    more = vocabulary(texts, known=words)
    generator = torch.Generator().manual_seed(seed)
    first, _ = skipgram.start(len(more) - len(words), w.shape[1], generator)
    return more, torch.cat([w, first])


class Index:
    """Documents by the mean of their words' vectors."""

    def __init__(self, words, vectors):
        self.words, self.vectors = words, vectors
        self.rows = torch.zeros(0, vectors.shape[1])

    def embed(self, texts):
        """A row for each document, (n, D): the mean over its words that have a vector."""
        ids = [torch.cat(numbered([text], self.words)) for text in texts]
        sizes = torch.tensor([len(each) for each in ids])
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)  # (n, longest)
        real = torch.arange(padded.shape[1]) < sizes[:, None]
        return (self.vectors[padded] * real[..., None]).sum(dim=1) / sizes.clamp(min=1)[:, None]

    def add(self, texts):
        """Put documents into the index."""
        self.rows = torch.cat([self.rows, self.embed(texts)])

    def search(self, text, n=5):
        """The numbers of the n documents nearest to one."""
        return skipgram.cosine(self.embed([text]), self.rows)[0].topk(n).indices.tolist()

    def neighbours(self, word, n=5):
        """The n words nearest to one."""
        return [self.words[i] for i in skipgram.nearest(self.vectors, self.words.index(word), n)]


if __name__ == "__main__":
    texts = documents(STORIES, seed=0)
    words, w, c = learn(texts)
    print(f"{len(words)} words, {loss(documents(50, seed=1), words, w, c):.2f} nats a pair of other documents")
    index = Index(*read(write(words, w)))
    for word in ("baker", "red", "kitchen"):
        print(word, "->", *index.neighbours(word))
