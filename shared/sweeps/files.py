"""What a sweep stores: a file for each finished job, and in the end one of all rows, each written whole or not at all.

results/depth.json: {"command": ..., settings ..., "code": hash, "made": [...], "verified": {...}, "rows": [...]}
code: of the code that the rows stand for. made: what made them, in the rows' order; each entry says how many rows.
verified: how many jobs the code that is named there has run again, and by how much they differed.
"""

import json
import os
import shutil
from pathlib import Path

from shared.sweeps.sweep import Sweep, key


def stored(path: Path) -> tuple[list[dict], str]:
    """The rows of a results file, and a line that says how they were made."""
    record = _read(path)
    how = "; ".join(
        f"{made['rows']} runs, {made['seconds'] / 60:.0f} minutes on {machine(made)}, {made['date']}"
        for made in record["made"]
    )
    return record["rows"], f"{record['command']}: {how}"


def machine(made: dict) -> str:
    """What runs were made on: the hardware, and how many threads."""
    return f"{made['hardware'] or 'hardware not noted'}, {made['threads']} thread{'s' * (made['threads'] > 1)}"


def is_current(sweep: Sweep) -> bool:
    """Whether today's code made the stored rows, or was verified to make the same."""
    return sweep.results.exists() and _read(sweep.results)["code"] == sweep.code


def stored_record(sweep: Sweep) -> dict:
    """The results file, whatever code it stands for. Raises ValueError if there is none."""
    if not sweep.results.exists():
        raise ValueError(f"no {sweep.results.name} is stored yet: run the sweep first")
    return _read(sweep.results)


def current_record(sweep: Sweep) -> dict:
    """The results file, if its rows stand for today's code; else one without rows."""
    return _read(sweep.results) if is_current(sweep) else {"code": sweep.code, "made": [], "rows": []}


def finished(sweep: Sweep) -> dict[str, dict]:
    """What came of the jobs that today's code finished, by key; what other code finished does not count."""
    found = {path.stem: _read(path) for path in sweep.underway.glob("*.json")}
    return {name: outcome for name, outcome in found.items() if outcome["made"]["code"] == sweep.code}


def keep(sweep: Sweep, job: dict, outcome: dict) -> None:
    """Store what came of a job."""
    made = {"code": sweep.code} | outcome["made"]
    _write_whole(sweep.underway / f"{key(job)}.json", json.dumps(outcome | {"made": made}))


def collect(sweep: Sweep) -> None:
    """Add what is finished to the results file, and what made it; then remove the folder of finished jobs."""
    record, groups = current_record(sweep), {}
    known, outcomes = {sweep.key_of(row) for row in record["rows"]}, finished(sweep)
    for name in map(key, sweep.jobs):
        if name in outcomes and name not in known:
            groups.setdefault(json.dumps(outcomes[name]["made"]), []).append(outcomes[name])
    for made, group in groups.items():
        seconds = round(sum(outcome["seconds"] for outcome in group))
        record["made"].append({"rows": len(group), "seconds": seconds} | json.loads(made))
        record["rows"] += [outcome["row"] for outcome in group]
    if groups:
        store(sweep, record)
    shutil.rmtree(sweep.underway, ignore_errors=True)


def store(sweep: Sweep, record: dict) -> None:
    """Write the results file, a row a line, so that a change of one shows as one."""
    head = {"command": f"python {Path(sweep.script).name}"} | sweep.settings
    head |= {name: record[name] for name in ("code", "made", "verified") if name in record}
    lines = ",\n".join(json.dumps(row) for row in record["rows"])
    _write_whole(sweep.results, json.dumps(head)[:-1] + ', "rows": [\n' + lines + "\n]}\n")


def _write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _read(path: Path) -> dict:
    """A file of JSON."""
    return json.loads(path.read_text(encoding="utf-8"))
