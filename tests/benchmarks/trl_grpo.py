"""An iteration of GRPO by `trl`'s trainer, on a GPT-2 of given sizes, without a network; for `bench_ppo.py`.

    iteration = grpo_iteration(config, prompts, length=72, pays=worth, groups_of=8)
    iteration()                                         # CPU seconds, from the first draw to the last step

`trl` is no requirement of ours: `pip install trl==1.16.0 datasets`.
"""

import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, PrinterCallback, TrainerCallback

MINIBATCHES, EPOCHS = 2, 2


def is_installed() -> bool:
    """Whether `trl` and the `datasets` that it needs are there."""
    return all(importlib.util.find_spec(name) for name in ("trl", "datasets"))


def id_tokenizer(vocab_size: int, end: int) -> PreTrainedTokenizerFast:
    """A tokenizer that reads "<7> <12>" as 7, 12; `end` ends a text and pads it."""
    tokenizer = Tokenizer(models.WordLevel({as_text([i]): i for i in range(vocab_size)}, unk_token=as_text([0])))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=as_text([end]), pad_token=as_text([end]))


def as_text(ids: Sequence[int]) -> str:
    """What `id_tokenizer` reads as these ids."""
    return " ".join(f"<{i}>" for i in ids)


class Watch(TrainerCallback):
    """CPU seconds from the beginning of a training's first step to the end of its last."""

    def __init__(self):
        self.start = self.end = self.steps = 0

    def on_step_begin(self, args, state, control, **more):
        if state.global_step == 0:
            self.start = time.process_time()

    def on_step_end(self, args, state, control, **more):
        self.end, self.steps = time.process_time(), state.global_step


def grpo_iteration(
    config: GPT2Config, prompts: list[list[int]], length: int, pays: Callable[[list[int]], float], groups_of: int
) -> Callable[[], float]:
    """A call that makes a trainer and lets it draw and learn once, by two epochs of two minibatches.

    prompts: different ones, each of which gets `groups_of` responses of just `length` tokens. pays: what a response's
    ids are worth. The policy is held to a reference by a penalty in the loss, so that there are two models. Making the
    trainer is not timed.
    """
    trl = _libraries()
    arguments = {
        "per_device_train_batch_size": len(prompts) * groups_of // MINIBATCHES,
        "steps_per_generation": MINIBATCHES,
        "num_iterations": EPOCHS,
        "max_steps": MINIBATCHES * EPOCHS,
        "num_generations": groups_of,
        "max_completion_length": length,
        "generation_kwargs": {"min_new_tokens": length},
        "learning_rate": 1e-3,
        "beta": 0.04,
        "loss_type": "grpo",
    }
    # as ours computes: in float32, each activation kept for the backward pass
    arguments |= {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "dataloader_pin_memory": False}
    arguments |= {"report_to": "none", "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
    tokenizer = id_tokenizer(config.vocab_size, config.eos_token_id)
    texts = trl.Dataset.from_dict({"prompt": [as_text(prompt) for prompt in prompts]})

    def reward(completion_ids, **more):
        return [pays(ids) for ids in completion_ids]

    def iteration() -> float:
        watch = Watch()
        with tempfile.TemporaryDirectory() as folder:
            GPT2LMHeadModel(config).save_pretrained(folder)  # the trainer loads the reference from where the policy was
            trainer = trl.GRPOTrainer(
                model=GPT2LMHeadModel.from_pretrained(folder),
                reward_funcs=reward,
                args=trl.GRPOConfig(output_dir=folder, **arguments),
                train_dataset=texts,
                processing_class=tokenizer,
                callbacks=[watch],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        assert watch.steps == MINIBATCHES * EPOCHS
        return watch.end - watch.start

    return iteration


def _libraries() -> SimpleNamespace:
    from datasets import Dataset
    from huggingface_hub import constants
    from transformers.utils import logging

    constants.HF_HUB_DISABLE_TELEMETRY = True  # a trainer of trl's reports itself otherwise
    logging.disable_progress_bar()  # of loading a model
    from trl import GRPOConfig, GRPOTrainer

    return SimpleNamespace(Dataset=Dataset, GRPOConfig=GRPOConfig, GRPOTrainer=GRPOTrainer)
