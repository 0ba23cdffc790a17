"""The faults of lesson 01: what ails each patient of its clinic, and its answer. Reading on spoils it."""

from shared.clinic import Change, Fault

FAULTS = [
    Fault(
        name="neighbours in a run are updated twice",
        changes=[
            Change('old, new = second, token  # of a neighbour that is this very pair: "abab"', "old = new = second")
        ],
        symptom="Training from kept counts learns other merges than recounting, but only from texts with runs: "
        "abababab, dashes, indented code.",
        hints=[
            "Merge ab in abab by hand. Which pairs were there before, and which after?",
            "After the first ab is merged, what stands on the left of the second one?",
        ],
        seen_in="mocibb/cs336#1: counts were updated from the word as it was before, so that neighbours merged in "
        "the same round were counted wrong. A cousin is counting aaaaa as four pairs although two can be merged: "
        "minbpe's and Hugging Face's trainers do so, and ours with them (karpathy/minbpe#51).",
    ),
    Fault(
        name="ties go by the order of a dictionary",
        changes=[
            Change(
                "return min(counts, key=lambda pair: (-counts[pair], pair), default=None)",
                "return max(counts, key=counts.get, default=None)",
            )
        ],
        symptom="The same words in another order teach other merges, and two implementations never agree.",
        hints=["What does max return if two are equally large?", "Which rule would not depend on the order?"],
        seen_in="karpathy/minbpe#90 (two texts with the same counts learn in different orders); the rule is asked for "
        "in huggingface/tokenizers#1065.",
    ),
    Fault(
        name="greedy longest match in place of rank order",
        changes=[
            Change(
                """
                word = spell(piece)
                if len(word) > LONG:
                    return self._encode_long(word)
                while len(word) > 1:
                    rank = min(map(self._ranks.__getitem__, pairs(word)))
                    if rank == NEVER:
                        break
                    word = word.replace(self._pairs[rank], chr(256 + rank))
                return tuple(map(ord, word))
                """,
                """
                word = ""
                data = piece.encode("utf-8", "surrogateescape")
                longest = sorted(self.vocab[: 256 + len(self.merges)], key=len, reverse=True)
                while data:
                    token = next(token for token in longest if data.startswith(token))
                    word += chr(self.vocab.index(token))
                    data = data[len(token) :]
                return tuple(map(ord, word))
                """,
            )
        ],
        symptom="Texts come back, ids are valid, there are hardly more tokens than before: and they are not those of "
        "the libraries. Long words are wrong as well.",
        hints=[
            "What does the vocabulary say, and what do the merges say?",
            "Where are the merges used at all?",
        ],
        seen_in="rasbt/LLMs-from-scratch#558: an encoder that looked up words first and did not follow the merges' "
        "ranks gave GPT-2 other ids than tiktoken for every word with a comma behind it.",
    ),
    Fault(
        name="merges applied from left to right",
        changes=[
            Change(
                "rank = min(map(self._ranks.__getitem__, pairs(word)))",
                "rank = next((self._ranks[pair] for pair in pairs(word) if pair in self._ranks), NEVER)",
            )
        ],
        symptom="Texts come back, and many words have the right ids. Those of more than 64 letters all do.",
        hints=["Of several pairs that could be merged, which one is?", "The merges were learnt in an order. Why?"],
        seen_in="ztxz16/fastllm#715: 55 to 62 % of the words tried were split otherwise than by the reference.",
    ),
    Fault(
        name="places of a long word out of order",
        changes=[Change("for place in waiting.pop(rank):", "for place in waiting.pop(rank)[::-1]:")],
        symptom="Long runs of tabs, spaces or one letter have other ids than the reference; all short words are right.",
        hints=["Encode aaaaa by hand, with the merge aa.", "In which order do the places of one rank have their turn?"],
        seen_in="osaurus-ai/vmlx-swift#73: a heap-based rewrite that differed on runs of white space, found by "
        "comparing it with the slow one.",
    ),
    Fault(
        name="a long word is read again for each merge",
        changes=[Change("LONG = 64  # characters; longer words are merged in another way", "LONG = 10**9")],
        symptom="Every id is right. Somebody pastes a megabyte without spaces, and the server stands still.",
        hints=["How often is each letter looked at?", "Which way of merging do long words take?"],
        seen_in="openai/tiktoken#195, and openai/harmony#151 with 119 seconds for 512 KiB of one letter.",
    ),
    Fault(
        name="line ends are dropped",
        changes=[
            Change(
                "stretches = STRETCH.findall(text) if self._known else [text]",
                "stretches = text.splitlines() if self._known else [text]",
            )
        ],
        symptom="Single sentences are right. Poems, code and chats come back as one line.",
        hints=["Compare a text and what comes back, character by character.", "Which step loses characters?"],
        seen_in="rasbt/LLMs-from-scratch#495: split() took the line ends with it.",
    ),
    Fault(
        name="training and encoding split differently",
        changes=[Change("return Tokenizer(merges, pattern, specials)", "return Tokenizer(merges, GPT2, specials)")],
        symptom="With GPT-2's pattern all is well. With another, the text that was learnt from has more tokens than "
        "training left it with.",
        hints=["Which pattern does the new tokenizer think it has?"],
        seen_in="ggml-org/llama.cpp#6920: one split for every model; numbers and contractions had other ids.",
    ),
    Fault(
        name="special tokens split as text",
        changes=[
            Change(
                """return regex.compile(f"({'|'.join(map(regex.escape, longest_first))})") if names else None""",
                "return None",
            )
        ],
        symptom="The end-of-text mark becomes half a dozen tokens, and the model never sees where a document ends.",
        hints=["Is the mark looked for before the text is split?"],
        seen_in="gh-markt/cpp-tiktoken#5.",
    ),
    Fault(
        name="specials injected from user text",
        changes=[
            Change(
                'names = self.specials if allowed == "all" else [allowed] if isinstance(allowed, str) else allowed',
                "names = self.specials",
            )
        ],
        symptom="Who types the end-of-text mark into a chat ends the text.",
        hints=["Who may write a special token?", "What does `allowed` decide?"],
        seen_in="huggingface/tokenizers#1347.",
    ),
    Fault(
        name="the shorter special wins",
        changes=[
            Change("longest_first = sorted(names, key=len, reverse=True)", "longest_first = sorted(names, key=len)")
        ],
        symptom="Of two special tokens, one of which begins like the other, the longer is never seen.",
        hints=["In a pattern a|ab, which alternative is tried first?"],
        seen_in="invergent-ai/surogate#157.",
    ),
    Fault(
        name="UTF-8 cut within a character",
        changes=[Change("if text := decoder.decode(self.decode_bytes([i])):", "if text := self.decode([i]):")],
        symptom="Streamed answers show boxes in place of emoji; decoded in one go they are fine.",
        hints=["How many tokens can one emoji be?", "What has to wait for the next token?"],
        seen_in="antonellof/ferrox#125; exo-explore/exo#1691.",
    ),
]
