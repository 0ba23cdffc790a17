"""One experiment, recorded twice: in memory for the plots, and in Weights & Biases for later.

    with track("04-scale-sweep", {"lr": 3e-3}) as run:
        run.log(loss=2.3, step_time=0.1)  # one row
    run.history  # [{"loss": 2.3, "step_time": 0.1}]

Nothing is uploaded unless the environment says WANDB_MODE=online. `wandb sync wandb/offline-run-*` uploads
an offline run afterwards.
"""

import os
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

MODES = ("offline", "online", "disabled")
FLUSH_SECONDS = 0.5  # wandb's own 15 s would lose a short run to a kill
WAIT_SECONDS = 30  # for wandb's server, at either end of an online run


class Run:
    """What `track` hands to its block."""

    def __init__(self, name: str, sink: Any):
        self.history: list[dict[str, int | float]] = []
        self._name = name
        self._sink = sink

    def log(self, /, **metrics: Any) -> None:
        """Add one row of numbers, for example `run.log(loss=2.3, tokens=512)`.

        A number is an int, a float, or a tensor, array or NumPy scalar without dimensions; a bool counts as 0
        or 1. NaN and infinity are kept: they are what a diverged run looks like.

        ValueError: a metric is not one number, the row is empty, or the block has ended. The row is then in
        neither record.
        """
        if self._sink is None:
            raise ValueError(
                f"run {self._name!r} has ended, so {', '.join(metrics)} would not reach its file: "
                "call log inside the `with track(...)` block, or track a new run"
            )
        if not metrics:
            raise ValueError(f"run {self._name!r} was given an empty row: name a metric, as in log(loss=2.3)")
        row = {metric: _number(metric, value) for metric, value in metrics.items()}
        self._sink.log(dict(row))
        self.history.append(row)

    def _finish(self, exit_code: int) -> None:
        sink, self._sink = self._sink, None
        sink.finish(exit_code)


@contextmanager
def track(
    name: str, config: dict[str, Any] | None = None, project: str = "llm-the-hard-way", group: str | None = None
) -> Iterator[Run]:
    """Record a run called `name`, with its settings `config`, for as long as the block lasts. group: of runs that
    wandb shows together, such as a sweep's.

    The environment decides where it goes:

    WANDB_MODE  `offline` (default): to files only; no network, no account, no output.
                `online`: uploaded too, with wandb's own messages; its server is given 30 s to answer at the
                start and 30 s to take the rest at the end (then `wandb sync` uploads the file later).
                `disabled`: no file; `run.history` is still kept.
    WANDB_DIR   the folder that gets `wandb/` (default: the current one); it is made if missing.

    However the block is left, also by an error or by interrupting the kernel, the run is finished with all
    its rows and the exception goes on its way. A kernel killed outright loses the last second at most.

    ValueError: WANDB_MODE is none of the three, or is `online` and wandb knows no key. OSError: the folder cannot be
    made; a ConnectionError if wandb's server does not answer.
    """
    run = Run(name, _start(name, config, project, group))
    exit_code = 1
    try:
        yield run
        exit_code = 0
    finally:
        run._finish(exit_code)


def _start(name: str, config: dict[str, Any] | None, project: str, group: str | None) -> Any:
    """Start wandb's own run."""
    mode = wandb_mode()
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read at wandb's import: no crash reports
    import wandb  # 1.4 s, so not before it is needed

    folder = Path.cwd() if mode == "disabled" else _folder()
    with redirect_stderr(StringIO()):  # wandb names each settings file it reads, silent or not
        wandb.setup(wandb.Settings(mode=mode))  # it may remember another mode from an earlier run
    if mode == "online":
        _require_key(wandb)
    settings = wandb.Settings(
        silent=mode != "online",
        console="off",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        finish_timeout=WAIT_SECONDS,
        init_timeout=WAIT_SECONDS,
        save_code=False,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_transaction_log_flush_interval=FLUSH_SECONDS,
    )
    try:
        return wandb.init(
            project=project,
            group=group,
            name=name,
            config=config,
            mode=mode,
            dir=folder,
            reinit="create_new",  # else wandb hands a nested track the outer run
            settings=settings,
        )
    except wandb.errors.CommError as error:
        raise ConnectionError(f"wandb's server did not answer: {error}") from error


def _folder() -> Path:
    """Where `wandb/` goes; absolute, because wandb's own process stays in the folder it was started in."""
    folder = Path(os.environ.get("WANDB_DIR") or ".").expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def wandb_mode() -> str:
    """What WANDB_MODE asks for; `offline` if nothing. Raises ValueError for what `track` does not know."""
    mode = os.environ.get("WANDB_MODE") or "offline"
    if mode not in MODES:
        raise ValueError(f"WANDB_MODE is {mode!r}: set it to one of {', '.join(MODES)}, or unset it")
    return mode


def _require_key(wandb: Any) -> None:
    """Ask wandb for its key before `init` does, because `init` would ask the reader."""
    try:
        found = wandb.login(prompt=False, verify=False)
        problem = "wandb knows no key"
    except wandb.errors.AuthenticationError as error:
        found, problem = False, str(error)
    if not found:
        raise ValueError(
            f"WANDB_MODE is 'online' but {problem}: run `wandb login` once in a terminal, "
            "or unset WANDB_MODE to record offline"
        )


def _number(metric: str, value: Any) -> int | float:
    """The plain number in `value`."""
    number = value.item() if getattr(value, "ndim", None) == 0 else value
    if isinstance(number, float):
        return float(number)
    if isinstance(number, int):
        return int(number)
    shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
    raise ValueError(
        f"metric {metric!r} is {reprlib.repr(value)} ({type(value).__name__}{shape}): "
        "log one number, for example loss.mean()"
    )
