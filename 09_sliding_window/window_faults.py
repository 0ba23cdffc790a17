"""The faults of lesson 09: what ails each patient of its clinic, and its answer. Reading on spoils it.

Kinds: a line of the helper, of its caller, or a setting; two at once; nothing at all; and faults that pass every check,
each with the property that catches it.
"""

import torch
import window
import window_evidence as evidence

from shared.clinic import Change, Fault
from shared.hooks import hooked
from shared.story_model import load_story_lm
from shared.world.words import KIND, VOCABULARY, encode


@torch.inference_mode()
def _answers_as_in_one_pass(helper, caller):
    """Each word of an answer is the likeliest of the model when it reads all before it at once, under its windows."""
    model, plain = caller.load(), load_story_lm()
    for i, (prompt, answer) in enumerate(zip(caller.prompts(), caller.answers(model, caller.prompts()), strict=True)):
        with hooked(plain, window.restrict(caller.windows(model))):
            words = plain(torch.tensor([prompt + answer]))[0, len(prompt) - 1 : -1].argmax(dim=-1).tolist()
        if wrong := [(said, own) for said, own in zip(answer, words, strict=True) if said != own]:
            said, own = (VOCABULARY[word] for word in wrong[0])
            return f"prompt {i}: the answer says {said!r}, one pass over all says {own!r}"


def _knows_its_hero(helper, caller):
    """The end of a story speaks of a girl or a boy, as the hero's name was one, 80 words before."""
    for hero, kin, wanted in (("Ann", "her", "girl"), ("Ben", "his", "boy")):
        text = f"{caller.SCENE} {caller.WISHES[2]}".replace("Ann", hero).replace(" her ", f" {kin} ")
        answer = caller.answers(caller.load(), [[caller.STOP, *encode(text)]])[0]
        if wanted not in (said := [VOCABULARY[word] for word in answer]):
            return f"a story of {hero} ends: {' '.join(said[:8])!r}, with no {wanted} in it"


def _cost_is_counted(helper, caller):
    """What a text is said to cost is what is counted when the model reads it."""
    said, found = caller.cost(caller.load(), 83), evidence.counted(caller, 83)
    return None if said == found else f"83 tokens cost {said} bytes and scores, {found} were counted"


def _keeps_to_its_scene(helper, caller):
    """After 80 words, most names, things and places of a telling are those of its scene."""
    said = caller.tell(caller.load(), caller.prompts()[1], 160)[80:]
    named = [word for word in said if KIND[VOCABULARY[word]] in evidence.NAMED]
    share = sum(word in encode(caller.SCENE) for word in named) / max(1, len(named))
    return None if share > 0.8 else f"after 80 words {share:.0%} of what is named is of the scene, expected nearly all"


def _writes_what_it_learnt(helper, caller):
    """The small model goes on with texts it has not seen, letter by letter."""
    ids = caller.texts(64, 5 * caller.PERIOD, seed=10**7)
    start = 3 * caller.PERIOD
    letters = caller.go_on(caller.train()[0], ids[:, :start], 2 * caller.PERIOD)
    right = (letters == ids[:, start:]).float().mean().item()
    return None if right > 0.9 else f"{right:.0%} of the letters that are written are right, expected nearly all"


COUNT = "return new_cache(model).nbytes, heads * sum(window.pairs(n, scope) for scope in {})"
BLOCK = "queries, keys = torch.arange(rows.start, rows.stop), columns({}, rows.stop, window, sinks)"
GLOBAL = "return [None if every is not None and layer % every == 0 else window for layer in {}]"
FIRST_OF_A_PASS = Change(
    "stays = (positions >= self.length + len(positions) - window) | (positions < sinks)",
    "stays = positions < self.length + window + sinks",
)
LOCAL_ALONE = Change(
    "return window.new_ring(model, windows(model), capacity=LONGEST)",
    "return window.new_ring(model, [WINDOW] * len(model.blocks), capacity=LONGEST)",
    in_caller=True,
)

FAULTS = [
    Fault(
        name="the columns of a block are counted from its last query: its first ones lack what only they still see",
        changes=[
            Change(
                "first = 0 if window is None else max(0, start - window + 1)",
                "first = 0 if window is None else max(0, stop - window)",
            )
        ],
        symptom="A window works in every test, and each test is a line of text. A page comes out wrong.",
        hints=[
            "Which queries are wrong? Count them from the beginning of the text.",
            "The wrong ones come in runs, and each run ends the same way. What is where a run begins?",
            "A block has many queries and one list of keys. Which of them needs the oldest key?",
        ],
        seen_in="tile-ai/TileOPs#295 is a cousin: a block's loop over its keys began elsewhere than its window; "
        "reported there.",
        evidence=evidence.blocks,
    ),
    Fault(
        name="nothing: the patient is healthy. A ring is written in turn, and attention asks for no order: each key "
        "was turned by its own position before it was stored. What is left is rounding, which depends on the order",
        changes=[],
        symptom="The cache has its keys in disorder: the newest stands before the oldest. And the logits differ from "
        "those of one pass, in the sixth digit.",
        hints=[
            "How does a query know how far a key is? When was that put into the key?",
            "Exchange two keys and their values. What does attention give then, on paper and in float32?",
        ],
        seen_in="no thread: whether a ring has to be unrolled is asked with every ring. Blaizzy/mlx-vlm#1715 is a case "
        "in which the order did matter: the ring was cut by a length.",
        evidence=evidence.slots,
    ),
    Fault(
        name="of a pass that is longer than the ring the first tokens stay, not the last",
        changes=[FIRST_OF_A_PASS],
        symptom="Whoever asks little is answered as ever. With long prompts the first word of an answer is right, what "
        "follows is made up.",
        hints=[
            "At what length of the prompt does it begin, and what is that long in this program?",
            "The first word comes from the pass that reads the prompt. What do the later ones read?",
            "Twenty-four tokens are written to twenty columns. Which should be left?",
        ],
        seen_in="Lightning-AI/litgpt#2182 is a cousin: a prompt longer than the window overwrote keys in its ring; "
        "reported there.",
        evidence=evidence.prompt_lengths,
    ),
    Fault(
        name="in the ring the letter that is being written is counted beside the window: nine are seen, not eight",
        changes=[
            Change(
                "cache = window.new_ring(served, [PERIOD], len(ids))",
                "cache = window.new_ring(served, [PERIOD + 1], len(ids))",
                in_caller=True,
            )
        ],
        symptom="A small model has learnt its texts to perfection. Asked to go on with one, it writes at random.",
        hints=[
            "Is its first letter right, and what has the model read by then?",
            "Whatever it learnt, it learnt by seeing so much and no more. What does it see when it writes?",
            "Does a window count the token that looks? Ask both sides.",
        ],
        seen_in="huggingface/transformers#39408 and zml/zml#763: two ways of attention counted a window differently.",
        evidence=evidence.learning,
        holds=_writes_what_it_learnt,
    ),
    Fault(
        name="the sinks' own places are added when they are turned on, though their keys have them already",
        changes=[
            Change(
                "self.keys[layer][:, :, :sinks] = self.turn(self.unturned[layer], torch.full((sinks,), dropped))",
                "self.keys[layer][:, :, :sinks] = self.turn(self.unturned[layer], torch.arange(sinks) + dropped)",
            )
        ],
        symptom="With one token kept a telling went on and on. Now its whole scene is kept, and what happens in it "
        "makes less and less sense.",
        hints=[
            "When does it turn, and how much has been read by then?",
            "How far from one another were two words of the scene, and how far are they afterwards?",
            "Turning a key adds to its position. What does it add to that of the first token, and to that of the last?",
        ],
        seen_in="huggingface/transformers#33691 and #35350 are cousins: positions of kept keys and of new ones did not "
        "fit together; reported there.",
        evidence=evidence.telling,
    ),
    Fault(
        name="queries and keys change places: a query sees those that can see it, up to the end of its block",
        changes=[
            Change(
                "seen = may_see(queries, keys, window, sinks).to(q.device)",
                "seen = may_see(keys, queries, window, sinks).mT.to(q.device)",
            )
        ],
        symptom="Never has a training gone so well. What the model writes is chance.",
        hints=[
            "How much of a text can be known? Compare with where the loss ends.",
            "A text that is read is there in full. One that is written is not.",
            "Which is the row and which the column: what looks, or what is looked at?",
        ],
        seen_in="no thread: planted because it fits every shape. huggingface/transformers#38094 and "
        "rasbt/LLMs-from-scratch#1062 are cousins: masks that said the opposite.",
        evidence=evidence.learning,
        example=True,
    ),
    Fault(
        name="every layer gets as many columns as the one that needs most",
        changes=[
            Change(
                "shapes = [(batch, n_kv_heads, sum(ring), d_head) for ring in self.rings]",
                "shapes = [(batch, n_kv_heads, max(map(sum, self.rings)), d_head)] * len(self.rings)",
            )
        ],
        symptom="Three layers of four look back twenty tokens. Yet texts of twice the length take twice the memory.",
        hints=[
            "Which layer should hold how much? Add it up, and compare with what is held.",
            "Is anything that is too much ever read?",
        ],
        seen_in="tenstorrent/tt-xla#5727: layers with a window had a cache for the whole length; reported there. "
        "vivekkalyanarangan30/llm_from_scratch#3 is a cousin: attention had a window, what was stored had none.",
        evidence=evidence.stored,
    ),
    Fault(
        name="the last twenty words of a prompt are all that is read: the layers never had the rest",
        changes=[
            Change(
                "words = [read(model, prompt, cache)]",
                "words = [read(model, prompt[-WINDOW:], cache)]",
                in_caller=True,
            )
        ],
        symptom="Answers are fluent. Ask with a long prompt, and they are about somebody else.",
        hints=[
            "Up to which length of the prompt is all well?",
            "A layer sees twenty words. How far do four of them see, one above the other, and one that has no window?",
            "Log what is handed to the model.",
        ],
        seen_in="lm-sys/FastChat#491 is a cousin: prompts were cut to their end before they were read; a window that "
        "slides is asked for there.",
        evidence=evidence.prompt_lengths,
        holds=_answers_as_in_one_pass,
    ),
    Fault(
        name="what lies in the ring is taken to lie there in the order of the text",
        changes=[
            Change(
                "held = ring_positions(self.length, window, sinks)[: self._filled(layer)]",
                "held = torch.arange(self.length - self._filled(layer), self.length)",
            )
        ],
        symptom="Words that come one by one are read well for ever. In handfuls they are read well for a while.",
        hints=[
            "From which position on are passes of three wrong? What happens there for the first time?",
            "A pass of one word is given no mask. What does a longer one need to know of each column?",
            "The ring is full, and one token more comes. In which column does it lie, and in which is it looked for?",
        ],
        seen_in="Blaizzy/mlx-vlm#1715: a ring was taken for a list. rajveer43/VeloxQuant-MLX#392: keys that were kept "
        "were taken to follow one another; fixed there.",
        evidence=evidence.gaps,
    ),
    Fault(
        name="four tokens are kept, as in the paper: they keep the model sane, the scene is forgotten",
        changes=[
            Change(
                "KEPT, RECENT = 1 + len(encode(SCENE)), 24",
                "KEPT, RECENT = 4, 24",
                in_caller=True,
            )
        ],
        symptom="A telling goes on as long as one likes, each sentence a good one. After a while it is another story.",
        hints=[
            "Is it less sure of its words than a healthy one?",
            "Who is named in the second half, and when was that name read last?",
            "What is kept for good, what of the last words, and what of all between?",
        ],
        seen_in="no thread: the authors of mit-han-lab/streaming-llm say in its FAQ that sinks do not lengthen what a "
        "model knows of; it is asked again and again.",
        evidence=evidence.telling,
        holds=_keeps_to_its_scene,
    ),
    Fault(
        name="the sinks' keys are turned on from where they were turned to before, and so ever faster",
        changes=[
            Change(
                "self.keys[layer][:, :, :sinks] = self.turn(self.unturned[layer], torch.full((sinks,), dropped))",
                """
                kept = self.keys[layer][:, :, :sinks]
                self.keys[layer][:, :, :sinks] = self.turn(kept, torch.full((sinks,), dropped))
                """,
            )
        ],
        symptom="A telling is right to the last digit for as long as the cache has room, and for a word more. Then it "
        "loses its scene.",
        hints=[
            "The first step after the cache is full is right, the second is not. What happens at each?",
            "By how many positions were the kept keys turned after one step, two, three? By how many should they be?",
        ],
        seen_in="mit-han-lab/streaming-llm#53: keys are stored before they are turned, explained there. "
        "vllm-project/vllm#43374: turning kept keys again at each step adds up, said there.",
        evidence=evidence.telling,
    ),
    Fault(
        name="the ring holds windows for all layers, also for the one that sees all",
        changes=[LOCAL_ALONE],
        symptom="A model has a layer that sees everything, so that stories end as they began. They do in one pass.",
        hints=[
            "What do the ends of the answers get wrong? Where in the prompt does that stand?",
            "How much does each layer hold, and how much should it?",
            "Two places say which layer sees how much. Do they agree?",
        ],
        seen_in="vllm-project/vllm#51756: global layers lost what was older than the others' window, fixed there; "
        "vllm-project/vllm#21863: windows were not set layer by layer.",
        evidence=evidence.answers,
        holds=_answers_as_in_one_pass,
    ),
    Fault(
        name="a block is multiplied with all keys before it: the window is left to the mask",
        changes=[
            Change(
                BLOCK.format("rows.start"),
                BLOCK.format("0"),
            )
        ],
        symptom="All numbers are right to the last digit. A text of twice the length takes four times as long.",
        hints=[
            "Does it depend on the window at all?",
            "How many keys does a block need, and how many is it given?",
        ],
        seen_in="vllm-project/vllm#50776: keys outside the window were loaded and then masked; mended there.",
        evidence=evidence.work,
    ),
    Fault(
        name="a layer that sees all is left out of the count: None is false",
        changes=[
            Change(
                COUNT.format("windows(model)"),
                COUNT.format("windows(model) if scope"),
                in_caller=True,
            )
        ],
        symptom="A program says what a text will cost before it is read. Afterwards it has cost more.",
        hints=[
            "Is a cost too low by a factor or by a sum? How does what is lacking grow with the text?",
            "Which layer costs that much?",
        ],
        seen_in="vllm-project/vllm#39254 is a cousin: the estimate of a cache took one kind of layer for another; "
        "closed there.",
        evidence=evidence.costs,
        holds=_cost_is_counted,
    ),
    Fault(
        name="layers are counted from 0: the first one sees all, the last does not",
        changes=[
            Change(
                GLOBAL.format("range(1, n_layers + 1)"),
                GLOBAL.format("range(n_layers)"),
            )
        ],
        symptom="As many layers see all as before, and memory is what it was. But the stories do not hold together.",
        hints=[
            "Which layer sees all, and which ought to?",
            "What number has the first layer in the paper, and what in a loop?",
        ],
        seen_in="huggingface/transformers#31775 and NVIDIA-NeMo/Megatron-Bridge#4875: every other layer had a window, "
        "and it was the wrong one; fixed there.",
        evidence=evidence.answers,
    ),
    Fault(
        name="the small model writes with a cache that knows no window",
        changes=[
            Change(
                "cache = window.new_ring(served, [PERIOD], len(ids))",
                "cache = served.new_cache(len(ids), ids.shape[1] + n)",
                in_caller=True,
            )
        ],
        symptom="A small model has learnt its texts to perfection. It goes on with one letter, and then it is lost.",
        hints=[
            "What is different between the pass that gives the first letter and the one that gives the second?",
            "What does a query see that stands alone in its pass? What takes something away from it?",
            "How much is held after 24 letters, and how much was ever seen in training?",
        ],
        seen_in="karpathy/nanochat#456: decoding token by token with a cache went past the window; closed. "
        "unslothai/unsloth#8253 is a cousin: the window did not reach one of several ways.",
        evidence=evidence.learning,
        holds=_writes_what_it_learnt,
    ),
    Fault(
        name="every layer is said to add its whole window, though a token is in its own",
        changes=[
            Change(
                "return 1 + sum(math.inf if window is None else window - 1 for window in windows)",
                "return sum(math.inf if window is None else window for window in windows)",
            )
        ],
        symptom="A needle lies within what the model can know of, and it is not found. Is a window too narrow?",
        hints=[
            "Which of the two numbers is measured, and which is computed?",
            "One layer, a window of 8: how many tokens does the last position know of? And two such layers?",
        ],
        seen_in="no thread: windows times layers is what papers and courses write, and with wide windows it is nearly "
        "right.",
        evidence=evidence.influence,
    ),
    Fault(
        name="a query sees a key one further back than the window",
        changes=[
            Change(
                "return past if window is None else past & ((distance < window) | (keys < sinks))",
                "return past if window is None else past & ((distance <= window) | (keys < sinks))",
            )
        ],
        symptom="Read word by word a text has one set of logits, read in passes of several it has another. "
        "Short texts agree.",
        hints=[
            "From which position on do the two part, and what are the windows?",
            "What decides what a query of a single word sees, and what the queries of a longer pass?",
            "How many tokens does a window of 6 hold, the token itself included? Count a row of the mask.",
        ],
        seen_in="mistralai/mistral-inference#60: reading the prompt saw one token more than decoding, asked there. "
        "huggingface/transformers#26792 and ml-explore/mlx-lm#390: masks one too wide, fixed there.",
        evidence=evidence.gaps,
    ),
    Fault(
        name="nothing: the patient is healthy. A mask is put over scores that were all computed: only attention by "
        "blocks computes fewer",
        changes=[],
        symptom="The window was made sixteen times narrower. The program needs as much memory as before.",
        hints=[
            "How many numbers does a product of all queries with all keys have? How many are masked afterwards?",
            "Which of the two functions is asked to save anything?",
        ],
        seen_in="karpathy/nanochat#825: memory is flat in the window where it is a mask, measured there; "
        "huggingface/transformers#29777: where the window is, asked there.",
        evidence=evidence.masked,
    ),
    Fault(
        name="short texts take the fast way, and that has no window",
        changes=[
            Change(
                "if mask is not None or q.shape[-2] != k.shape[-2]:",
                "if mask is not None or q.shape[-2] <= 128:",
            )
        ],
        symptom="Short texts were made faster. Since then the small model learns more slowly, and a quarter of what it "
        "writes is wrong.",
        hints=[
            "Does a token that is flipped change what it may, and nothing else?",
            "Is there another way to know the next letter than to look back eight? Is there one in the ring?",
            "What does PyTorch's own attention see when it is told only that it is causal?",
        ],
        seen_in="unslothai/unsloth#8253: a way of attention was causal and had no window, in training; fixed there.",
        evidence=evidence.fast_way,
    ),
    Fault(
        name="only one layer of six sees all, and the model has four",
        changes=[Change("WINDOW, EVERY = 20, 4", "WINDOW, EVERY = 20, 6", in_caller=True)],
        symptom="Settings were taken over from a large model. Memory is down to less than half, answers begin well.",
        hints=[
            "Which words of an answer are wrong, and what would one have to know to say them?",
            "How far back can the end of a story know of anything? Count layers and windows.",
        ],
        seen_in="vllm-project/vllm#21863 is a cousin: a pattern of layers was not read, and all had the window; fixed "
        "there.",
        evidence=evidence.stored,
        holds=_knows_its_hero,
    ),
    Fault(
        name="the sinks are counted in the turn of the ring, and written over when it comes round",
        changes=[
            Change(
                "return torch.where(positions < sinks, positions, sinks + (positions - sinks) % window)",
                "return positions % (sinks + window)",
            )
        ],
        symptom="A telling keeps to its scene until the cache is full, and for a little while after.",
        hints=[
            "How many tokens are read when it begins, and which column is written then?",
            "The words that are kept for good: are they still there a hundred words later?",
        ],
        seen_in="no thread: planted because it is the ring of one who has no sinks. pytorch/executorch#13540: where a "
        "ring goes on with sinks, done there.",
        evidence=evidence.telling,
    ),
    Fault(
        name="where the sinks are in the window anyway they are listed twice, and weigh twice",
        changes=[
            Change(
                "return torch.cat([torch.arange(min(sinks, first)), torch.arange(first, stop)])",
                "return torch.cat([torch.arange(sinks), torch.arange(first, stop)])",
            )
        ],
        symptom="Without sinks all is right. With them the end of a page is right, and its beginning is not.",
        hints=[
            "Up to which query is it wrong? What is special about that number?",
            "Write down the keys of the first block.",
            "What does a softmax do with a key that stands in the list twice?",
        ],
        seen_in="no thread: planted because each part of the line is right by itself.",
        evidence=evidence.blocks,
    ),
    Fault(
        name="of a long pass the first tokens stay, and the ring has a window for the layer that sees all",
        changes=[FIRST_OF_A_PASS, LOCAL_ALONE],
        symptom="Answers begin well and end badly. After a first repair they are better, and not right.",
        hints=[
            "What does each layer hold after a prompt, and which tokens should that be?",
            "Which of the wrong words have to do with the beginning of the prompt, and which with the words just read?",
            "There are two faults, one in each file: mend either alone and look again.",
        ],
        seen_in="no thread: planted because both come to light in the same words. Lightning-AI/litgpt#2182 and "
        "vllm-project/vllm#51756 have one each.",
        evidence=evidence.answers,
        holds=_answers_as_in_one_pass,
    ),
    Fault(
        name="nothing: the patient is healthy. This model has learnt no attention sink that it could lose: its first "
        "token is one like others",
        changes=[],
        symptom="Keeping the first token is said to save a model from its window. Here it makes no difference. "
        "Is it kept at all?",
        hints=[
            "Does the number of sinks change anything? If it were not kept, would it?",
            "What must a model have learnt to do with its first token so that the loss of it hurts?",
        ],
        seen_in="tomaarsen/attention_sinks#18 is a cousin: equal results with sinks and without, reported as a fault "
        "and explained there.",
        evidence=evidence.without_first,
    ),
]
