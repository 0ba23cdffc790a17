"""The faults of lesson 01: what ails each patient of its clinic, and its answer. Reading on spoils it.

Kinds: a line of the helper, of its caller, or a setting; two at once; nothing at all; and faults that pass every check,
each with the property that catches it.
"""

import sys
import unicodedata

import bpe_evidence as evidence

from shared.clinic import Change, Fault


def _prompt_is_right(helper, caller):
    """A prompt has each of its four specials once, in order, whatever the question is."""
    tokenizer = caller.learn()
    special = tokenizer.specials
    for question in ("Where's my gate?", f"{caller.END}{caller.ANSWER}", ""):
        ids = caller.prompt(tokenizer, question)
        found = [i for i in ids if i in special.values()]
        if found != [special[name] for name in (caller.BEGIN, caller.USER, caller.END, caller.ANSWER)]:
            return f"the prompt of {question!r} has the specials {[tokenizer.decode([i]) for i in found]}"
        if tokenizer.decode(ids[2:-2]) != question:
            return f"the question {question!r} stands in its prompt as {tokenizer.decode(ids[2:-2])!r}"


def _rows_hold_documents(helper, caller):
    """What is packed is found again, document by document; only the last row's rest may be missing."""
    tokenizer = caller.learn()
    some = caller.documents(80, 31)
    found = caller.unpack(tokenizer, caller.pack(tokenizer, some))
    wanted = [unicodedata.normalize("NFC", document.decode("utf-8")) for document in some]
    if len(found) < len(some) - 4:
        return f"of {len(some)} documents {len(found)} are found in the rows"
    for text, right in zip(found, wanted, strict=False):
        if unicodedata.normalize("NFC", text) != right:
            return f"a document is {text[:40]!r} in the rows, it was {right[:40]!r}"


def _rows_and_prompts_agree(helper, caller):
    """A text has the same ids in a row and in a prompt, and comes back from the rows."""
    tokenizer = caller.learn()
    for text in ("the café table", "größer", "यह दीपक", "価格は"):
        in_row, in_prompt = caller.encode(tokenizer, text.encode())[:-1], caller.prompt(tokenizer, text)[2:-2]
        if in_row != in_prompt:
            return f"{text!r} has {len(in_row)} tokens in a row and {len(in_prompt)} others in a prompt"
    return _rows_hold_documents(helper, caller)


def _report_counts_bytes(helper, caller):
    """Bytes per token times tokens is the number of bytes."""
    tokenizer = caller.learn()
    for language in caller.SENTENCES:
        some = caller.documents(20, 33, [language])
        texts = [unicodedata.normalize("NFC", document.decode("utf-8")) for document in some]
        wanted = sum(len(text.encode()) for text in texts) / sum(len(tokenizer.encode(text)) for text in texts)
        if abs((found := caller.bytes_per_token(tokenizer, some)) - wanted) > 1e-9:
            return f"{language} is reported with {found:.3f} bytes a token, it has {wanted:.3f}"


def _every_language_is_learnt(helper, caller):
    """A token stands for two bytes or more in each of the program's languages."""
    tokenizer = caller.learn()
    for language in caller.SENTENCES:
        some = caller.documents(20, 35, [language])
        if (found := caller.bytes_per_token(tokenizer, some)) < 2:
            return f"{language} has {found:.2f} bytes a token, expected 2 or more"


def _forms_are_one(helper, caller):
    """A text has the same ids in both forms of its accents."""
    tokenizer = caller.learn()
    ids = [
        caller.encode(tokenizer, unicodedata.normalize(form, "café naïve größer").encode()) for form in ("NFC", "NFD")
    ]
    return (
        None
        if ids[0] == ids[1]
        else f"'café naïve größer' has {len(ids[0])} tokens in one form, {len(ids[1])} in the other"
    )


def _chunks_do_not_matter(helper, caller):
    """A text that comes in chunks has the ids of the whole."""
    tokenizer = caller.learn()
    text = "They'll sell\n\n  12345 weathervanes,  won't they? " * 3
    for size in (1, 2, 3, 7, 20):
        chunks = [text[at : at + size] for at in range(0, len(text), size)]
        if (found := caller.upload(tokenizer, chunks)) != (wanted := tokenizer.encode(text)):
            return f"in chunks of {size} a text has {len(found)} tokens, as a whole {len(wanted)}"


def _merges_alone_decide(helper, caller):
    """A word's ids are what its merges give, also where another way of merging would make one token of it."""
    a, b, c = (ord(helper.spell(letter)) for letter in "abc")
    tokenizer = helper.Tokenizer([(b, c), (a, b), (257, c)])
    ids = tokenizer.encode("abc")
    return None if ids == [a, 256] else f"with the merges bc, ab, ab+c 'abc' became {ids}, expected {[a, 256]}"


def _memory_is_bounded(helper, caller):
    """A tokenizer keeps no more than ROOM words."""
    room = helper.ROOM
    helper.ROOM = 50
    try:
        tokenizer = helper.Tokenizer([])
        for i in range(500):
            tokenizer.encode(f"word{i:x}")
        kept = max(len(tokenizer._words), len(tokenizer._stretches))
    finally:
        helper.ROOM = room
    return None if kept <= 50 else f"with ROOM = 50, {kept} words are kept"


def _a_word_is_split_once(helper, caller):
    """A merge reads a word once, however often its pair stands there. Counted: how often a word is split."""
    splits = []
    sys.setprofile(lambda frame, event, called: event == "c_call" and called.__name__ == "split" and splits.append(1))
    try:
        helper.learn(["ab" * 200], 2)
    finally:
        sys.setprofile(None)
    return None if len(splits) <= 4 else f"to learn 2 merges from one word it was split {len(splits)} times, expected 2"


CHUNKS_APART = Change(
    "return list(tokenizer.encode_stream(chunks))",
    "return [i for chunk in chunks for i in tokenizer.encode(chunk)]",
    in_caller=True,
)
HOLDS_ONE = Change(
    "settled = split(text[at:end], self.pattern)[:-2]", "settled = split(text[at:end], self.pattern)[:-1]"
)
LATIN = Change(
    'return unicodedata.normalize("NFC", document.decode("utf-8"))',
    'return unicodedata.normalize("NFC", document.decode("latin-1"))',
    in_caller=True,
)
BACK = Change(
    "texts.append(tokenizer.decode(ids[:-1]))",
    'texts.append(tokenizer.decode(ids[:-1]).encode("latin-1").decode("utf-8"))',
    in_caller=True,
)

FAULTS = [
    Fault(
        name="counts are set where they should be added up",
        changes=[Change("counts[pair] += often\nwhere[pair].append(w)", "counts[pair] = often\nwhere[pair].append(w)")],
        symptom="Trained by recounting, the vocabulary is as it should be. Trained by the fast learner it begins with "
        "merges that look like chance.",
        hints=[
            "Both learners take the most frequent pair. Do they agree on how frequent it is?",
            "Compare the first counts of _Corpus with those of count_pairs.",
            "What if two words hold the same pair?",
        ],
        seen_in="rohitg00/ai-engineering-from-scratch#47: a review's remark on word counts that a merge overwrites "
        "where it should add.",
        evidence=evidence.first_merges,
    ),
    Fault(
        name="nothing: the patient is healthy. A run of five has four pairs and room for two merges; GPT-2's kin and "
        "Hugging Face's trainer count the four, and so does this one",
        changes=[],
        symptom="The first merge of 'aaaaabcbcbc' is 'aa', which is written twice. 'bc' would have been written three "
        "times. Is the count wrong?",
        hints=["Which rule does the module state, before any code?", "What do the libraries learn from this text?"],
        seen_in="karpathy/minbpe#72 asks for the other count, and is open; google/sentencepiece#318 calls its own "
        "count of such runs a bug.",
        evidence=evidence.counted_and_merged,
    ),
    Fault(
        name="greedy longest match in place of rank order",
        changes=[
            Change(
                """
                word = spell(piece)
                encode = encode_word if len(word) <= LONG else encode_long
                return tuple(map(ord, encode(word, self._ranks)))
                """,
                """
                word = []
                data = piece.encode("utf-8", "surrogateescape")
                by_length = sorted(self.vocab[: 256 + len(self.merges)], key=len, reverse=True)
                while data:
                    token = next(token for token in by_length if data.startswith(token))
                    word.append(self.vocab.index(token))
                    data = data[len(token) :]
                return tuple(word)
                """,
            )
        ],
        symptom="Texts come back, ids are valid, there are hardly more tokens than before: and one word in seven has "
        "other ids than in the libraries.",
        hints=[
            "What does the vocabulary say, and what do the merges say?",
            "Where are the merges used at all?",
        ],
        seen_in="rasbt/LLMs-from-scratch#558: an encoder that looked up words first and did not follow the merges' "
        "ranks gave GPT-2 other ids than tiktoken for every word with a comma behind it.",
        evidence=evidence.tokens,
    ),
    Fault(
        name="BEGIN stands twice: once from a template, once from the program",
        changes=[
            Change(
                "return [special[BEGIN], special[USER], *tokenizer.encode(question), special[END], special[ANSWER]]",
                'header = tokenizer.encode(f"{BEGIN}{USER}", allowed="all")\n'
                "return [special[BEGIN], *header, *tokenizer.encode(question), special[END], special[ANSWER]]",
                in_caller=True,
            )
        ],
        symptom="Each prompt has a token more than a healthy program's. Decoded, all of them look right at a glance.",
        hints=[
            "Each check of the tokenizer passes. What is handed to the model?",
            "Count each special token of the prompt.",
        ],
        seen_in="abetlen/llama-cpp-python#1439: special tokens doubled by chat formats; fixed there.",
        evidence=evidence.prompts,
        holds=_prompt_is_right,
    ),
    Fault(
        name="ties go by the order of a dictionary",
        changes=[
            Change(
                "return min(counts, key=lambda pair: (-counts[pair], pair), default=None)",
                "return max(counts, key=counts.get, default=None)",
            )
        ],
        symptom="The same words in another order teach other merges.",
        hints=["What does max return if two are equally large?", "Which rule would not depend on the order?"],
        seen_in="karpathy/minbpe#90 (two texts with the same counts learn in different orders); the rule is asked for "
        "in huggingface/tokenizers#1065.",
        evidence=evidence.order_of_words,
    ),
    Fault(
        name="a long word is read again for each merge",
        changes=[Change("LONG = 64", "LONG = 10**9")],
        symptom="Every id is right. Somebody pastes a megabyte without spaces, and the server stands still.",
        hints=["How often is each letter looked at?", "Which way of merging do long words take?"],
        seen_in="openai/tiktoken#195, and openai/harmony#151 with 119 seconds for 512 KiB of one letter.",
        evidence=evidence.time_to_encode,
    ),
    Fault(
        name="ids are stored in a byte each",
        changes=[
            Change("ROW, DTYPE = 32, np.uint16", "ROW, DTYPE = 32, np.uint8", in_caller=True),
        ],
        symptom="The rows have the right shape and take half of the memory. No document is found in them.",
        hints=[
            "Encode and decode a document without packing it. What is different in the rows?",
            "Which is the largest id there?",
            "How many different numbers fit into DTYPE, and how many tokens are there?",
        ],
        seen_in="princeton-nlp/LLM-Shearing#65 and huggingface/transformers#2825: ids above 65,535 stored in uint16.",
        evidence=evidence.rows,
        holds=_rows_hold_documents,
    ),
    Fault(
        name="places of a long word out of order",
        changes=[Change("for place in waiting.pop(pair):", "for place in waiting.pop(pair)[::-1]:")],
        symptom="Some long runs of tabs, spaces or one letter have other ids than the reference. All other words are "
        "right.",
        hints=["Encode aaaaa by hand, with the merge aa.", "In which order do the places of one pair have their turn?"],
        seen_in="osaurus-ai/vmlx-swift#73: a heap-based rewrite that differed on runs of white space, found by "
        "comparing it with the slow one.",
        evidence=evidence.runs,
    ),
    Fault(
        name="line ends are dropped",
        changes=[
            Change(
                "stretches = STRETCH.findall(text) if self.pattern in KNOWN else [text]",
                "stretches = STRETCH.findall(''.join(text.splitlines())) if self.pattern in KNOWN else [text]",
            )
        ],
        symptom="Single sentences are right. Poems, code and chats come back as one line.",
        hints=["Compare a text and what comes back, character by character.", "Which step loses characters?"],
        seen_in="rasbt/LLMs-from-scratch#495: split() took the line ends with it.",
        evidence=evidence.texts_back,
    ),
    Fault(
        name="a word that is in the vocabulary is taken whole, before any merge",
        changes=[
            Change(
                "word = spell(piece)",
                'data = piece.encode("utf-8", "surrogateescape")\n'
                "if data in self.vocab[: 256 + len(self.merges)]:\n"
                "    return (self.vocab.index(data),)\n"
                "word = spell(piece)",
            )
        ],
        symptom="With merges that were learnt all ids are right, as far as anybody has looked. With a list of merges "
        "that came from elsewhere a few words are one token where the reference has two or three.",
        hints=[
            "Each check passes: all of them learn their merges. From which words does a learnt token come?",
            "Write merges by hand in which two ways lead to one text, of which one is never reached.",
            "What is looked at before the merges are?",
        ],
        seen_in="ggml-org/llama.cpp#7193: whether whole words are looked up first is a setting of the vocabulary, and "
        "there it was lacking. tiktoken looks them up; Hugging Face's BPE does with ignore_merges=True only.",
        evidence=evidence.whole_words,
        holds=_merges_alone_decide,
    ),
    Fault(
        name="neighbours in a run are updated twice",
        changes=[Change("old, new = second, token", "old = new = second")],
        symptom="The fast learner makes other merges than recounting, but only from texts with runs: abababab, dashes, "
        "indented code.",
        hints=[
            "Merge ab in abab by hand. Which pairs were there before, and which after?",
            "After the first ab is merged, what stands on the left of the second one?",
        ],
        seen_in="mocibb/cs336#1: counts were updated from the word as it was before, so that neighbours merged in "
        "the same round were counted wrong.",
        evidence=evidence.first_merges,
        example=True,
    ),
    Fault(
        name="END is written as text, and nothing allows it",
        changes=[
            Change(
                "return [*tokenizer.encode(read(document)), tokenizer.specials[END]]",
                "return tokenizer.encode(read(document) + END)",
                in_caller=True,
            )
        ],
        symptom="In the rows the end of each document can be read, and yet the program finds no document there.",
        hints=[
            "Each check passes. Where is a document's end written?",
            "How many documents does the program find in its own rows?",
            "What does `encode` do with a special token that it is not allowed to see?",
        ],
        seen_in="rasbt/LLMs-from-scratch#616 and huggingface/tokenizers#1263: an end-of-text token in letters.",
        evidence=evidence.rows,
        holds=_rows_hold_documents,
    ),
    Fault(
        name="training and encoding split differently",
        changes=[Change("return Tokenizer(merges, pattern, specials)", "return Tokenizer(merges, GPT2, specials)")],
        symptom="With GPT-2's pattern all is well. With another, the text that was learnt from has more tokens than "
        "training left it with.",
        hints=["Which pattern does the new tokenizer think it has?"],
        seen_in="ggml-org/llama.cpp#6920: one split for every model; numbers and contractions had other ids.",
        evidence=evidence.left_by_training,
    ),
    Fault(
        name="nothing: the patient is healthy. A text is split and merged as a whole; where it is cut changes tokens, "
        "and never the text that comes back",
        changes=[],
        symptom="The ids of two halves of a text, one behind the other, are not those of the text. Both decode to it.",
        hints=["Where were the texts cut?", "Which merges can reach across a cut?"],
        seen_in="TransformerLensOrg/TransformerLens#86: code that took the two for equal; mended in that code, not in "
        "the tokenizer.",
        evidence=evidence.joined,
    ),
    Fault(
        name="a word is read once for each place where the pair stands",
        changes=[Change("for w in dict.fromkeys(self.where.pop(pair)):", "for w in self.where.pop(pair):")],
        symptom="Every merge is right, and prose is learnt as fast as ever. With a file that is one long line, twice "
        "the text takes four times as long.",
        hints=[
            "Each check passes. What is different about a long line?",
            "How often does `merge` read a word in which its pair stands a thousand times?",
            "What is in `where` for such a word?",
        ],
        seen_in="huggingface/tokenizers#497: without a pre-tokenizer, files on one line take too long to learn from.",
        evidence=evidence.time_to_learn,
        holds=_a_word_is_split_once,
    ),
    Fault(
        name="the shorter special wins",
        changes=[Change("names = sorted(specials, key=len, reverse=True)", "names = sorted(specials)")],
        symptom="Of two special tokens, one of which begins like the other, the longer is never seen.",
        hints=["In a pattern a|ab, which alternative is tried first?"],
        seen_in="invergent-ai/surogate#157.",
        evidence=evidence.specials,
    ),
    Fault(
        name="the bytes of a token are counted after it was decoded: a part of a character becomes U+FFFD, three bytes",
        changes=[
            Change(
                "return sum(len(tokenizer.vocab[i]) for i in ids) / len(ids)",
                "return sum(len(tokenizer.decode([i]).encode()) for i in ids) / len(ids)",
                in_caller=True,
            )
        ],
        symptom="By the report the vocabulary is better than it was, in three languages. No text has a token less.",
        hints=[
            "Each check passes, and the tokens are the same. How is the report made?",
            "For which languages is it too high, and what do their tokens look like?",
            "What is the text of half a character, and how long is it?",
        ],
        seen_in="karpathy/nanochat#693 and karpathy/autoresearch#384: bytes counted that way in bits per byte.",
        evidence=evidence.report,
        holds=_report_counts_bytes,
    ),
    Fault(
        name="merges applied from left to right",
        changes=[Change("pair = min(known, key=ranks.__getitem__)", "pair = known[0]")],
        symptom="Texts come back, and many words have the right ids. Those of more than 64 letters all do.",
        hints=["Of several pairs that could be merged, which one is?", "The merges were learnt in an order. Why?"],
        seen_in="ztxz16/fastllm#715: 55 to 62 % of the words tried were split otherwise than by the reference.",
        evidence=evidence.tokens,
    ),
    Fault(
        name="the program encodes its chunks apart, and the stream that it should use holds back too little: mending "
        "the one shows the other",
        changes=[CHUNKS_APART, HOLDS_ONE],
        symptom="An upload has more tokens than the same text in one piece, the more, the smaller its chunks.",
        hints=[
            "What does the program do at the border of two chunks?",
            "The checks are about the helper. Does the program use what fails there?",
            "There are two faults: mend either alone and look again.",
        ],
        seen_in="izikeros/count_tokens#7 for chunks that cut tokens; fixed there. No thread with the stream's line.",
        evidence=evidence.uploads,
        holds=_chunks_do_not_matter,
    ),
    Fault(
        name="special tokens are split as text",
        changes=[
            Change(
                """
                for i, part in enumerate(parts):
                    ids += [self.specials[part]] if i % 2 else self._encode_text(part)
                """,
                """
                for part in parts:
                    ids += self._encode_text(part)
                """,
            )
        ],
        symptom="The end-of-text mark becomes half a dozen tokens, although it is allowed.",
        hints=["Is the mark looked for before the text is split?", "What becomes of it once it is found?"],
        seen_in="gh-markt/cpp-tiktoken#5.",
        evidence=evidence.specials,
    ),
    Fault(
        name="the vocabulary is learnt from one language of seven",
        changes=[
            Change(
                "return bpe.train(map(read, documents(400, LEARNT)), VOCAB_SIZE, PATTERN, SPECIALS)",
                'return bpe.train(map(read, documents(400, LEARNT, ["English"])), VOCAB_SIZE, PATTERN, SPECIALS)',
                in_caller=True,
            )
        ],
        symptom="Some customers' documents cost as ever. Others cost one and a half to four times the tokens.",
        hints=[
            "Each check passes, and every text comes back. Which documents are dear?",
            "What are their tokens like?",
            "From which texts was the vocabulary learnt?",
        ],
        seen_in="no thread; Petrov et al. 2023 (arXiv 2305.15425) measure it in 17 tokenizers, up to 15 times.",
        evidence=evidence.report,
        holds=_every_language_is_learnt,
    ),
    Fault(
        name="nothing: the patient is healthy. A token may be but a step to a longer one, and stand nowhere itself",
        changes=[],
        symptom="Some tokens never stand in the documents that they were learnt from. Was the text encoded by others?",
        hints=["Was each of them once the most frequent pair?", "What was merged after it?"],
        seen_in="no thread: such tokens are in every vocabulary that was learnt by merging.",
        evidence=evidence.never_used,
    ),
    Fault(
        name="specials injected from user text",
        changes=[
            Change(
                """
                allowed = checked_names(allowed, self.specials)
                check_lacks(text, [name for name in checked_names(forbidden, self.specials) if name not in allowed])
                """,
                """
                allowed = checked_names("all", self.specials)
                check_lacks(text, [name for name in checked_names(forbidden, self.specials) if name not in allowed])
                """,
            )
        ],
        symptom="Who types the end-of-text mark into a chat ends the text.",
        hints=["Who may write a special token?", "What does `allowed` decide?"],
        seen_in="huggingface/tokenizers#1347.",
        evidence=evidence.specials,
    ),
    Fault(
        name="accents come in two forms, and the program takes them as they come",
        changes=[
            Change(
                'return unicodedata.normalize("NFC", document.decode("utf-8"))',
                'return document.decode("utf-8")',
                in_caller=True,
            )
        ],
        symptom="Two documents that look the same on every screen have different ids.",
        hints=[
            "Each check passes, and both documents come back as they were. In which bytes do they differ?",
            "How many characters has 'é'?",
        ],
        seen_in="sillsdev/silnlp#841: text was not normalised before it was encoded, and took tokens more.",
        evidence=evidence.forms,
        holds=_forms_are_one,
    ),
    Fault(
        name="UTF-8 cut within a character",
        changes=[
            Change(
                "if text := decoder.decode(self.decode_bytes([i])):",
                "if text := decoder.decode(self.decode_bytes([i]), final=True):",
            )
        ],
        symptom="Streamed answers show boxes in place of emoji; decoded in one go they are fine.",
        hints=["How many tokens can one emoji be?", "What has to wait for the next token?"],
        seen_in="antonellof/ferrox#125; exo-explore/exo#1691.",
        evidence=evidence.streamed,
    ),
    Fault(
        name="what is remembered is never forgotten",
        changes=[
            Change(
                """
                if len(key) <= MEMORABLE:
                    if len(self) >= ROOM:
                        self.clear()
                    self[key] = value
                """,
                """
                if len(key) <= MEMORABLE:
                    self[key] = value
                """,
            )
        ],
        symptom="Every id is right. The service takes a little more memory each day, until it is restarted.",
        hints=[
            "Each check passes. What does a tokenizer keep from one text to the next?",
            "Encode a hundred thousand different words: what grows?",
        ],
        seen_in="EleutherAI/gpt-neox#383: an unbounded cache of words; bounded there. huggingface/tokenizers#1539.",
        evidence=evidence.remembered,
        holds=_memory_is_bounded,
    ),
    Fault(
        name="UTF-8 is read as Latin-1, a character for each byte, and what comes out of the rows is turned back: the "
        "round trip is right, and a prompt has other tokens than the rows",
        changes=[LATIN, BACK],
        symptom="Each document comes back from the rows as it was. Texts that are not plain English take up to four "
        "times the tokens.",
        hints=[
            "Each check passes. Is the same text the same tokens, in a row and in a prompt?",
            "How does the program come from bytes to text, and from ids?",
            "There are two faults: mend either alone and look at what comes back.",
        ],
        seen_in="unicamp-dl/mMARCO#24 for Latin-1 in place of UTF-8; no thread for turning it back.",
        evidence=evidence.rows_and_prompts,
        holds=_rows_and_prompts_agree,
    ),
]
