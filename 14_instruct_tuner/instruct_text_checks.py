"""Checks of `instruct.py`: the template, and what is asked of a conversation."""

import random

from instruct_cases import IGNORE, VOCABULARY, begun, chat, lengthy, list_difference, talks

from shared.clinic import Check, refusal


def _not_as(conversation, ids, answer):
    """Where a conversation differs from its tokens and its answers by hand, in words."""
    if gap := list_difference(conversation[0], ids):
        return f"tokens, {gap}"
    if gap := list_difference(conversation[1], answer):
        return f"answer, {gap}"


def _check_render(m):
    for template, messages, ids, answer in talks(m):
        if gap := _not_as(m.render(messages, template), ids, answer):
            return f"{messages} in the template that opens {template.opens}, {gap}"


def _check_reply(m):
    for template, messages, ids, _ in talks(m):
        for n in (len(messages) - 1, 0):
            before = m.render(messages[:n], template)
            opens = template.opens["assistant"]
            wanted = [*before[0], *opens], [*before[1], *[False] * len(opens)]
            if gap := _not_as(m.render(messages[:n], template, reply=True), *wanted):
                return f"{messages[:n]}, a reply to come, {gap}"
        if messages[-1][0] == "assistant":
            prompt = m.render(messages[:-1], template, reply=True)[0]
            if gap := list_difference(prompt, ids[: len(prompt)]):
                return f"the prompt, and the conversation that is trained on, {gap}"
            begins = [t for t, its in enumerate(m.render(messages, template)[1]) if its and t >= len(prompt) - 1]
            if begins[0] != len(prompt):
                return f"a prompt of {len(prompt)} tokens: the answer begins at position {begins[0]}"


def _check_twice(m):
    for template, messages, _, _ in talks(m):
        fresh = next(it for it in talks(m) if it[1] == messages)
        first = m.render(messages, template, reply=True)
        second = m.render(messages, template, reply=True)
        if gap := _not_as(second, *first):
            return f"the same messages a second time, {gap}"
        if template != fresh[0]:
            return f"the template afterwards: {template}, before {fresh[0]}"
        if messages != fresh[1]:
            return f"the messages afterwards: {messages}, before {fresh[1]}"


def _check_render_refused(m):
    cases = [
        ("a role that is not there", "'tool'", lambda: m.render([("user", [20]), ("tool", [20])], chat(m))),
        ("a system's message without such a role", "'system'", lambda: m.render([("system", [20])], begun(m))),
    ]
    for template, held in ((begun, (0, 1, 2)), (chat, (1, 2)), (lengthy, (3, 8, 4, 5, 9, 10, 11))):
        for token in held:
            for role in ("user", "assistant"):
                said = [20, token, 21]
                cases.append(
                    (
                        f"{role}: {said}, token {token} being of the template {template.__name__}",
                        f"token {token}",
                        lambda role=role, said=said, template=template: m.render([(role, said)], template(m)),
                    )
                )
    return refusal(cases)


def _check_free_tokens(m):
    """Tokens that stand inside an opening or an end, and nowhere first, may be said."""
    for template, free in ((chat, (4, 5, 6, 7, 3)), (lengthy, (6, 7, 12, 13)), (begun, (3, 28))):
        for token in free:
            said = [token, 20, token]
            ids, answer = m.render([("assistant", said)], template(m))
            if gap := list_difference([t for t, its in zip(ids, answer, strict=True) if its][:3], said):
                return f"an answer {said}, which holds no control of the template {template.__name__}: {gap}"


def _check_parse(m):
    for template, messages, ids, _ in talks(m):
        if (found := m.parse(ids, template)) != messages:
            return f"{ids}: found {found}, expected {messages}"


def _check_parse_open(m):
    for template, ids, wanted in (
        (begun, [0, 1, 7, 2], [("user", [7]), ("assistant", [])]),
        (begun, [0, 1, 7, 2, 9, 10], [("user", [7]), ("assistant", [9, 10])]),
        (chat, [1, 6, 4, 22, 2, 4, 1, 7, 4, 26], [("user", [22]), ("assistant", [26])]),
        (lengthy, [3, 8, 5, 7], [("assistant", [])]),
        (lengthy, [3, 8], []),
    ):
        if (found := m.parse(ids, template(m))) != wanted:
            return f"{ids}, whose last turn is not closed: found {found}, expected {wanted}"


def _random_talk(draw, template):
    """A template's messages at random, and whether a reply is opened."""
    words = [token for token in range(VOCABULARY) if token not in template.controls]
    roles = sorted(template.opens)
    messages = [(draw.choice(roles), draw.choices(words, k=draw.randrange(5))) for _ in range(draw.randrange(6))]
    return messages, draw.random() < 0.3


def _check_round_trip(m):
    draw = random.Random(0)
    for _ in range(60):
        for make in (begun, chat, lengthy):
            template = make(m)
            messages, reply = _random_talk(draw, template)
            wanted = messages + [("assistant", [])] * reply
            ids, answer = m.render(messages, template, reply=reply)
            if (found := m.parse(ids, template)) != wanted:
                return f"{messages}, reply {reply}, rendered and parsed: found {found}, expected {wanted}"
            said = [said for role, said in messages if role == "assistant"]
            ends = template.closes["assistant"][: template.closes["assistant"].index(template.stop) + 1]
            asked = [token for words in said for token in [*words, *ends]]
            if gap := list_difference([t for t, its in zip(ids, answer, strict=True) if its], asked):
                return f"{messages}: what the assistant has to write, {gap}"


def _check_parse_refused(m):
    return refusal(
        [
            ("ids without the begin", "begin with [1]", lambda: m.parse([1, 7], begun(m))),
            ("ids with another begin", "begin with [3, 5]", lambda: m.parse([3, 5, 6, 20], lengthy(m))),
            ("a word between turns", "position 3 holds token 20", lambda: m.parse([0, 2, 0, 20], begun(m))),
            ("half an opening", "position 4 holds token 5", lambda: m.parse([3, 8, 5, 6, 5, 20], lengthy(m))),
            ("an end of another role", "position 5 holds token 9", lambda: m.parse([3, 8, 5, 7, 20, 9], lengthy(m))),
            ("half an end", "position 4 holds token 2", lambda: m.parse([1, 6, 4, 22, 2, 20], chat(m))),
        ]
    )


def _check_targets(m):
    for _, messages, ids, answer in talks(m):
        inputs, targets = m.inputs_and_targets(m.Conversation(ids, answer))
        if gap := list_difference(inputs, ids[:-1]):
            return f"{messages}, inputs, {gap}"
        wanted = [ids[t + 1] if answer[t + 1] else IGNORE for t in range(len(ids) - 1)]
        if gap := list_difference(targets, wanted):
            return f"{messages}, targets, {gap}"
        first = m.Conversation(ids, [True, *answer[1:]])  # nothing stands before the first token that could ask for it
        if gap := list_difference(m.inputs_and_targets(first)[1], wanted):
            return f"{messages}, as if the first token were the assistant's, targets, {gap}"


def _check_asked_whole(m):
    """From messages to targets: what the assistant says, and its stop, and nothing else."""
    for template, messages, ids, answer in talks(m):
        asked = [token for token in m.inputs_and_targets(m.render(messages, template))[1] if token != IGNORE]
        wanted = [token for token, its in zip(ids, answer, strict=True) if its]
        if gap := list_difference(asked, wanted, "target"):
            return f"{messages}: of the targets, {gap}"
        n = sum(role == "assistant" for role, _ in messages)
        if (found := asked.count(template.stop)) != n:
            return f"{messages}: the stop, token {template.stop}, is asked for {found} times, expected {n}"


def _check_all_tokens(m):
    for _, _, ids, answer in talks(m):
        if gap := _not_as(m.all_tokens(m.Conversation(ids, answer)), ids, [True] * len(ids)):
            return f"{ids}, {gap}"


TEXT_CHECKS = [
    Check(
        "a conversation is written in the template's form, and the assistant has to write its words and its stop",
        _check_render,
        "Which tokens does the template put around each message, and which of all would the assistant write?",
        about=["render"],
    ),
    Check(
        "a prompt is how the conversation begins that is trained on",
        _check_reply,
        "What stands right before the assistant's first word, and where does the answer begin?",
        about=["render"],
    ),
    Check(
        "the same messages give the same conversation, and are left as they were",
        _check_twice,
        "What is new after a call, and what was there before it?",
        about=["render"],
    ),
    Check(
        "a message may not hold the template's controls, nor come from another role",
        _check_render_refused,
        "By which tokens could somebody who types them end a message, or begin one?",
        about=["render"],
    ),
    Check("all other tokens may be said", _check_free_tokens, "Which tokens are controls?", about=["render"]),
    Check(
        "a rendered conversation can be parsed",
        _check_parse,
        "Where does each message begin and end?",
        about=["parse"],
    ),
    Check("a turn that is open has the tokens that are there", _check_parse_open, about=["parse"]),
    Check(
        "render and parse are each other's inverse, on any messages",
        _check_round_trip,
        "Which of the two does not do what the template says?",
        about=["render", "parse"],
    ),
    Check("ids that are no conversation are refused, with their position", _check_parse_refused, about=["parse"]),
    Check(
        "what follows a token is its target, if the assistant has to write it",
        _check_targets,
        "Position t reads token t. Which token should it foretell, and of which token must it be asked whose it is?",
        about=["inputs_and_targets"],
    ),
    Check(
        "from messages to targets: the assistant's words and its stop, whole, and nothing else",
        _check_asked_whole,
        "Which is the first target, and which is the last?",
        about=["render", "inputs_and_targets"],
    ),
    Check("with all tokens asked for, the conversation is the same", _check_all_tokens, about=["all_tokens"]),
]
