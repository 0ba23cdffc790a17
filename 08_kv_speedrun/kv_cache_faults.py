"""The faults of lesson 08: what ails each patient of its clinic, and its answer. Reading on spoils it.

Kinds: a line of the helper, of its caller, or a setting; two at once; nothing at all; and faults that pass every check,
each with the property that catches it.
"""

import functools

import kv_cache_evidence as evidence
import torch

from shared.clinic import Change, Fault
from shared.story_model import load_story_lm
from shared.world.words import VOCABULARY, encode


def _session_forgets(helper, caller):
    """Each answer of a session is the model's own, whatever was asked before."""
    prompts = [[caller.STOP, *encode(text)] for text in evidence.SHORT]
    return _unlike_the_model(caller, prompts, caller.session(caller.load(), prompts))


def _rows_stay_apart(helper, caller):
    """Each answer of a batch is the model's own, whoever stands beside it, and whoever has left."""
    prompts = [*caller.prompts(), *([caller.STOP, *encode(text)] for text in evidence.SHORT)]
    return _unlike_the_model(caller, prompts, caller.batch(caller.load(), prompts))


def _guesses_change_nothing(helper, caller):
    """Guesses save passes, and each answer is the model's own."""
    prompts = caller.prompts()
    return _unlike_the_model(caller, prompts, caller.guessed(caller.load(), prompts))


def _three_run_at_once(helper, caller):
    """The pool's 320 columns are enough for three requests at once."""
    model, rows = caller.load(), []
    hook = model.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    scene = [caller.STOP, *encode(caller.SCENE)]
    caller.serve(model, scene, [prompt[len(scene) :] for prompt in caller.prompts()])
    hook.remove()
    return None if max(rows) >= 3 else f"at most {max(rows)} requests run at once, in {len(rows)} passes"


@torch.inference_mode()
def _unlike_the_model(caller, prompts, answers):
    """None if each answer is whole and each of its words the likeliest of the model without a cache."""
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        words = _plain()(torch.tensor([prompt + answer]))[0, len(prompt) - 1 : -1].argmax(dim=-1).tolist()
        wrong = next((n for n, (said, own) in enumerate(zip(answer, words, strict=True)) if said != own), None)
        if wrong is not None:
            said, own = VOCABULARY[answer[wrong]], VOCABULARY[words[wrong]]
            return f"prompt {i}, word {wrong}: {said!r}, the model without a cache says {own!r}"
        if not caller.ended(answer) or caller.STOP in answer[:-1]:
            return f"prompt {i}: the answer's {len(answer)} words are not where it ends"


@functools.cache
def _plain():
    return load_story_lm()


ROWS_OF_THE_LAST_STEP = Change("rows = [rows[i] for i in going]", "rows = going", in_caller=True)

FAULTS = [
    Fault(
        name="the padding stays where the row was that has left",
        changes=[
            Change(
                """
                self.keys, self.values = self.keys[:, rows], self.values[:, rows]
                self.padding = self.padding[rows]
                """,
                """
                self.keys, self.values = self.keys[:, rows], self.values[:, rows]
                self.padding = self.padding[: len(rows)]
                """,
            ),
            ROWS_OF_THE_LAST_STEP,
        ],
        symptom="All rows of a batch are right until the first answer is over. Then all the others turn, and one that "
        "was over goes on.",
        hints=[
            "What is counted by row, in the cache and in the program? What becomes of each when a row leaves?",
            "Does it happen already when the first row leaves, or only when another follows? Is that one question?",
            "There are two faults: mend either alone and look at the rows again.",
        ],
        seen_in="no thread: planted because two faults lie on one path, so that mending one seems to have failed. "
        "scouzi1966/maclocal-api#140: answers that are over early spoil the others, reported there.",
        evidence=evidence.batch,
        holds=_rows_stay_apart,
    ),
    Fault(
        name="nothing: the patient is healthy. Sums of float32 depend on the order of their terms, and that on the "
        "shape of a pass; in float64 the gap is a billion times smaller",
        changes=[],
        symptom="With a cache the logits are not the same as without: they differ in the sixth digit. And with other "
        "chunks they differ otherwise.",
        hints=[
            "How would a gap look that comes from a wrong key, and how one that comes from rounding?",
            "What happens to the gap if the same is computed with more digits?",
        ],
        seen_in="huggingface/transformers#25420 and #27040: reported as a bug, explained there.",
        evidence=evidence.gaps,
    ),
    Fault(
        name="a chunk that is not the first goes without a mask, and is then masked as if nothing came before it",
        changes=[Change("if T == 1 and not self.padding.any():", "if self.length and not self.padding.any():")],
        symptom="Somebody read prompts in chunks to save memory. Short prompts are answered well, and what comes word "
        "by word is right. Long prompts are answered with nonsense.",
        hints=[
            "Up to which position are the logits right, and what happens there?",
            "A pass of one word is right wherever it stands. What is different in a pass of three?",
            "What does attention do with several queries when it is given no mask? Which key is the first query's own?",
        ],
        seen_in="pytorch/executorch#21749: causal attention off by the cache's length, explicit masks added there. "
        "pytorch/pytorch#103082: the corner to which such a mask is aligned, asked there.",
        evidence=evidence.gaps,
        example=True,
    ),
    Fault(
        name="a request that ends makes its pages free, those too that others hold",
        changes=[Change("self.users[number] -= 1", "self.users[number] = 0")],
        symptom="A server runs well as long as few ask. When many do, it stops in the middle of its work. "
        "The memory was far from full.",
        hints=[
            "The message names a page. Who held it, and since when?",
            "The curves part company long before the end. What happens there?",
            "How many requests may hold one page? What is left of that number when one of them ends?",
        ],
        seen_in="Avarok-Cybersecurity/atlas#373: a shared block's count was set to zero, and the block handed out "
        "again; described there.",
        evidence=evidence.pages,
    ),
    Fault(
        name="the last word of the prompt is read twice: with the prompt, and again with the first guess",
        changes=[
            Change(
                "read(model, torch.tensor([prompt[:-1]]), cache)",
                "read(model, torch.tensor([prompt]), cache)",
                in_caller=True,
            )
        ],
        symptom="Guesses should change how fast words come, and not which. Half of the answers are other ones.",
        hints=[
            "Is an answer wrong from its first word on, or from the first guess that was refused?",
            "Add up: how many words were given to the model, and how many columns are filled?",
            "Which words must the cache hold when the first guess is checked?",
        ],
        seen_in="ggml-org/llama.cpp#7859: tokens stood in a cache twice; explained there.",
        evidence=evidence.rounds,
        holds=_guesses_change_nothing,
    ),
    Fault(
        name="keys are stored as they are and turned when they are read, by their column and not their position",
        changes=[
            Change(
                """
                q, k = layer.place(q, positions), layer.place(k, positions)
                keys, values = cache.extend(k, v)
                """,
                """
                keys, values = cache.extend(k, v)
                q, keys = layer.place(q, positions), layer.place(keys)
                """,
            )
        ],
        symptom="Alone, each prompt is answered well. In a batch only the longest is. A model with learned positions "
        "has no such trouble.",
        hints=[
            "What does the longest row have that the others have not?",
            "What do the two models do differently with a position, and where?",
            "Two numbers say where a word stands: its column and its position. Who uses which?",
        ],
        seen_in="NeuraLegion/shainet#110 is a cousin: cached keys were turned once more when they were read, found in "
        "review there.",
        evidence=evidence.rows,
    ),
    Fault(
        name="pages are 40 columns long, and there are 8: two numbers are exchanged. Most of a page stays empty, and "
        "a shared one is copied for a few columns",
        changes=[Change("PAGE, N_PAGES = 8, 40", "PAGE, N_PAGES = 40, 8", in_caller=True)],
        symptom="The pool has as many columns as before, and every answer is right. But it takes longer until all are "
        "answered.",
        hints=[
            "Is a pass slower, or are there more of them?",
            "What does a request wait for? How much of what is held is filled?",
        ],
        seen_in="no thread: what is wasted in a page's rest is why pages are small (Kwon et al. 2023, section 3).",
        evidence=evidence.pages,
        holds=_three_run_at_once,
    ),
    Fault(
        name="all layers share one memory: an expanded tensor is a view of its first part",
        changes=[
            Change(
                "self.keys, self.values = (torch.empty(shape, dtype=dtype) for _ in range(2))",
                "self.keys, self.values = (torch.empty(shape[1:], dtype=dtype).expand(shape) for _ in range(2))",
            )
        ],
        symptom="After somebody saved memory the first pass is right to the last digit, whatever its size. No later "
        "one is.",
        hints=[
            "What does the second pass read that the first one does not?",
            "Store one thing for the first layer and another for the last. What does the first then hold?",
            "How many bytes does the cache own?",
        ],
        seen_in="no thread: layers that write to one memory. vllm-project/vllm#41657 is a cousin: groups of layers "
        "whose slots lay on one another; fixed there.",
        evidence=evidence.gaps,
    ),
    Fault(
        name="nothing: the patient is healthy. What lies behind the length is never read, and is written over",
        changes=[],
        symptom="After every answer the session's cache is reset. Its memory still holds the keys of the last prompt.",
        hints=[
            "Which columns does a pass read, and which were written before it reads them?",
            "What would the second answer be like if it read the first prompt?",
        ],
        seen_in="no thread: a reset of the length alone is how it is done. rasbt/LLMs-from-scratch#925 is about a "
        "reset that was missing.",
        evidence=evidence.left_over,
    ),
    Fault(
        name="rows are numbered by the last step's rows, not by the prompts",
        changes=[ROWS_OF_THE_LAST_STEP],
        symptom="In a batch of two nothing is ever wrong. In a batch of six, sentences get mixed up in the end, and an "
        "answer that was over goes on.",
        hints=[
            "How many answers are over when the first wrong word comes?",
            "Whose words are they?",
            "A row's number changes when others leave. Twice.",
        ],
        seen_in="no thread: planted because it hides until a second row ends. tenstorrent/tt-xla#5778 is a cousin: "
        "requests that move to another row when one ends, reported there.",
        evidence=evidence.batch,
        holds=_rows_stay_apart,
    ),
    Fault(
        name="with one new word for each request there is no mask, and shorter requests read what is behind their end",
        changes=[
            Change("mask = None if T == self.batch == 1 else seen[:, None]", "mask = None if T == 1 else seen[:, None]")
        ],
        symptom="One request alone is answered well. Of several together the longest is, the others go astray after "
        "some words.",
        hints=[
            "Is the first word of each answer right? Which pass made it?",
            "Every request decodes one word at a time, and one word may look at all. At all of what?",
            "What lies in a row's columns behind its own last one?",
        ],
        seen_in="ml-explore/mlx-examples#977 is a cousin: a cache's unfilled part was attended to, found there.",
        evidence=evidence.pages,
    ),
    Fault(
        name="what was said is forgotten after an answer, the prompt is not",
        changes=[
            Change("cache.step_back(cache.length)", "cache.step_back(len(said))", in_caller=True),
        ],
        symptom="The first answer of a session is always right. Later ones are fluent, and other than in a session of "
        "their own.",
        hints=[
            "Whom is the second answer about? Where do its things come from?",
            "How many columns are filled when the second prompt is read?",
        ],
        seen_in="rasbt/LLMs-from-scratch#925: a second prompt began where the first had ended; fixed there.",
        evidence=evidence.session,
        holds=_session_forgets,
    ),
    Fault(
        name="positions are counted by columns, padding included. Rotary ones do not show it: only distances count",
        changes=[
            Change(
                "return (columns - self.padding[:, None]).clamp(min=0) if self.padding.any() else columns",
                "return columns.expand(self.batch, -1) if self.padding.any() else columns",
            )
        ],
        symptom="The story model answers a batch as it does each prompt alone. One with learned positions does not.",
        hints=[
            "Which rows of the second model are right?",
            "What may be added to all positions of a row, in the one model and in the other?",
        ],
        seen_in="unslothai/unsloth#4078: one count of positions for all rows of a batch padded on the left.",
        evidence=evidence.rows,
    ),
    Fault(
        name="a guess of which some words stay is not forgotten, the refused ones neither",
        changes=[
            Change(
                "cache.step_back(len(guess) - stayed)",
                "if not stayed:\n    cache.step_back(len(guess))",
                in_caller=True,
            )
        ],
        symptom="Guesses should change how fast words come, and not which. The answers begin well.",
        hints=[
            "After which passes do the two curves move apart?",
            "What must the cache hold when a pass begins? Compare with what was said.",
        ],
        seen_in="ml-explore/mlx-lm#1109: refused drafts stayed in a cache that could not step back; it is refused now.",
        evidence=evidence.rounds,
        holds=_guesses_change_nothing,
    ),
    Fault(
        name="a shared page is copied only where a new page is needed besides: a few words are written into the page "
        "that others hold",
        changes=[Change("if shared:", "if shared and missing:")],
        symptom="Requests share a beginning. Those that add many words are answered well, some that add few are not.",
        hints=[
            "How many words fit behind the beginning before its last page is full?",
            "Who else reads what the second request writes there?",
            "Two requests hold a page, and one of them writes. What has to happen, and when does it here?",
        ],
        seen_in="Avarok-Cybersecurity/atlas#1193: a shared page that is partly filled was written to without a copy, "
        "reported there.",
        evidence=evidence.served,
    ),
    Fault(
        name="nothing: the patient is healthy. A guess repeats what was said before: where a text says something new "
        "it is wrong, and its words cost no more than without",
        changes=[],
        symptom="Speculation hardly helps: most passes bring one word, as without guesses.",
        hints=[
            "In which passes does it help? What is said there?",
            "Which words can this draft not know?",
        ],
        seen_in="no thread: how often a guess stays is a matter of text and draft (Leviathan et al. 2023).",
        evidence=evidence.rounds,
    ),
    Fault(
        name="all words of a chunk take the last word's row of the mask: they see words behind them",
        changes=[Change("seen = columns <= new[:, :, None]", "seen = columns <= new[:, -1:, None]")],
        symptom="With pages, answers are good for thirty words and more. Some end otherwise than they do without.",
        hints=[
            "Are the logits right that come from reading the beginning alone, word by word? In chunks?",
            "The answers' words come one by one, and those passes are right. Which are left?",
            "How many rows does the mask of a pass over eight words have?",
        ],
        seen_in="rasbt/LLMs-from-scratch#697 and meta-llama/llama#899: masks that did not fit a chunk behind a cache, "
        "reported there.",
        evidence=evidence.served,
    ),
    Fault(
        name="the cache of a batch is not told which columns are padding",
        changes=[
            Change(
                "cache = new_cache(model, len(prompts), padding=padding)",
                "cache = new_cache(model, len(prompts))",
                in_caller=True,
            )
        ],
        symptom="Five of six answers of a batch are right to the last word, however they are padded. The sixth is not.",
        hints=[
            "Is that rounding? How far are the logits of all rows from those of each alone?",
            "What stands before the first word of a shorter prompt, and who looks at it?",
        ],
        seen_in="huggingface/transformers#30670: one prompt was answered otherwise in another batch, reported there.",
        evidence=evidence.answers,
        holds=_rows_stay_apart,
    ),
    Fault(
        name="positions begin at 0 in every pass",
        changes=[
            Change(
                "columns = torch.arange(self.length, self.length + T) + self.evicted",
                "columns = torch.arange(T) + self.evicted",
            )
        ],
        symptom="Whatever is read in one pass is right. Nothing after it is, in passes of one word or of more.",
        hints=[
            "Do the later passes read wrong keys, or do they ask wrongly?",
            "Log what each pass asks for: where do its words stand?",
        ],
        seen_in="skyzh/tiny-llm#46 is a cousin: positions that went on by the wrong length; fixed there.",
        evidence=evidence.gaps,
    ),
    Fault(
        name="a request's pages are taken to lie one behind another",
        changes=[
            Change(
                "return torch.as_tensor(table)[columns // page] * page + columns % page",
                "return table[0] * page + columns",
            )
        ],
        symptom="One request is answered well. Of several, one that should be over goes on, in the others' words.",
        hints=[
            "Does it happen with one request? With the second, while the first is silent?",
            "Which pages does the second request hold, and where does its second page lie?",
        ],
        seen_in="no thread: planted because it is right for whoever comes first. vllm-project/vllm#41657 is a cousin: "
        "two columns that lay in one slot; fixed there.",
        evidence=evidence.served,
    ),
    Fault(
        name="nothing: the patient is healthy. A hundred columns of a small model are copied in no time beside the "
        "pass itself; the copies grow with the length, and the lesson measures where they count",
        changes=[],
        symptom="A cache that copies all it holds at every word is as fast as one that has room. Is the one with room "
        "broken?",
        hints=[
            "How many bytes are copied at a word, and how many does a pass read at least?",
            "At which length would the two be equal?",
        ],
        seen_in="no thread: it depends on sizes, and small ones show no difference.",
        evidence=evidence.seconds,
    ),
    Fault(
        name="positions are counted by what is held, not by what was read",
        changes=[
            Change(
                "columns = torch.arange(self.length, self.length + T) + self.evicted",
                "columns = torch.arange(self.length, self.length + T)",
            )
        ],
        symptom="A telling that goes on and on is right for as long as the cache has room. Soon after that its "
        "sentences fall apart.",
        hints=[
            "What does the cache forget, and what do those that stay keep?",
            "How far is a new word from the one before it, by their positions?",
        ],
        seen_in="rajveer43/VeloxQuant-MLX#175: an offset that was the rows kept, not the tokens seen.",
        evidence=evidence.endless,
    ),
]
