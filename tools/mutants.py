"""How much do a lesson's checks see? Change its helper at random, one place at a time, and examine each mutant.

    python tools/mutants.py 04_attention_lab/attention.py --n 60

An operator, a comparison, a constant or sign, or a name becomes another of its kind, the four kinds in turn. Docstrings
and other strings, errors that are raised, imports and type hints stay as they are. Each mutant is examined in a copy
of the lesson's folder, in a process of its own: an endless loop runs into the time limit and counts as caught. A
survivor is a mutant that passes every check: it computes the same, or a check is missing.
"""

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMINE = """
import importlib, sys
from shared.clinic import examine
sys.exit(bool(examine(importlib.import_module(sys.argv[1])).failed))
"""
PAIRS = ["Add Sub", "Mult Div", "And Or", "BitAnd BitOr", "Lt LtE", "Gt GtE", "Eq NotEq", "Is IsNot", "In NotIn"]
SWAPS = {"FloorDiv": "Mult", "Mod": "FloorDiv", "Pow": "Mult", "MatMult": "Mult"}
SWAPS |= dict(pair.split() for pair in PAIRS) | dict(pair.split()[::-1] for pair in PAIRS)


def variants(node: ast.AST, names: Sequence[str]) -> tuple[str, list[ast.AST]]:
    """The kind of an expression, and what it may become. names: what else may stand in a name's place."""
    match node:
        case ast.BinOp(op=op) | ast.AugAssign(op=op) | ast.BoolOp(op=op) if other := SWAPS.get(type(op).__name__):
            return "operator", [type(node)(**vars(node) | {"op": getattr(ast, other)()})]
        case ast.Compare(left, [op, *ops], right) if other := SWAPS.get(type(op).__name__):
            return "comparison", [ast.Compare(left, [getattr(ast, other)(), *ops], right)]
        case ast.UnaryOp(operand=operand):
            return "constant", [operand]
        case ast.Constant(bool(value)):
            return "constant", [ast.Constant(not value)]
        case ast.Constant(int(value)):
            return "constant", [ast.Constant(value + 1), ast.Constant(value - 1)]
        case ast.Constant(float(value)):
            return "constant", [ast.Constant(value * 2 or 1.0), ast.Constant(-value or -1.0)]
        case ast.Name(name, ast.Load()) if name in names:
            return "name", [ast.Name(other) for other in names if other != name]
    return "", []


def places(node: ast.AST, names: Sequence[str] = ()):
    """Each place below a node, as (holder, key): `holder[key]` stands there. With the names of the functions around."""
    if isinstance(node, ast.FunctionDef):
        bound = [it.arg for it in ast.walk(node.args) if isinstance(it, ast.arg)]
        bound += [it.id for it in ast.walk(node) if isinstance(it, ast.Name) and isinstance(it.ctx, ast.Store)]
        names = sorted({*names, *bound} - {"self", "_"})
    for field, value in ast.iter_fields(node):
        holder, keys = (value, range(len(value))) if isinstance(value, list) else (vars(node), [field])
        for key in keys if field not in ("annotation", "returns", "decorator_list") else ():
            if isinstance(holder[key], ast.AST) and not isinstance(holder[key], ast.Raise | ast.JoinedStr):
                yield holder, key, names
                yield from places(holder[key], names)


def mutants(source: str, n: int, seed: int = 0) -> list[tuple[int, int, str, str, str]]:
    """At most n mutants, each changed in another place: line, column, what stood there, what it is now, the source."""
    draw, tree, kinds = random.Random(seed), ast.parse(source), {}
    for holder, key, names in places(tree):
        kind, found = variants(holder[key], names)
        if found:
            kinds.setdefault(kind, []).append((holder, key, draw.choice(found)))
    turns = zip_longest(*(draw.sample(found, len(found)) for found in kinds.values()))
    made = []
    for holder, key, becomes in list(filter(None, chain(*turns)))[:n]:
        was, holder[key] = holder[key], becomes
        made.append((was.lineno, was.col_offset, *map(ast.unparse, (was, becomes, tree))))
        holder[key] = was
    return made


def passes(helper: Path, source: str, limit: float | None = None) -> bool:
    """Whether a helper with this source passes all checks of its lesson within so many seconds."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(helper.parent, Path(folder, "lesson"), ignore=shutil.ignore_patterns("*.ipynb", "*.gif"))
        (copy / helper.name).write_text(source, encoding="utf-8")
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(copy), str(ROOT)]), "OMP_NUM_THREADS": "1"}
        call = [sys.executable, "-c", EXAMINE, helper.stem]
        try:
            return subprocess.run(call, cwd=copy, env=env, capture_output=True, timeout=limit).returncode == 0
        except subprocess.TimeoutExpired:
            return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("helper", type=Path, help="such as 04_attention_lab/attention.py")
    parser.add_argument("--n", type=int, default=60, help="how many mutants")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other mutants")
    asked = parser.parse_args()
    path, start = asked.helper.resolve(), time.perf_counter()
    healthy = path.read_text(encoding="utf-8")
    if not passes(path, healthy):
        sys.exit(f"{asked.helper} does not pass its lesson's checks, or could not be examined: mend that first")
    limit = 5 + 5 * (time.perf_counter() - start)  # in seconds
    made = mutants(healthy, asked.n, asked.seed)
    survivors = [mutant for mutant in made if passes(path, mutant[-1], limit)]
    print(f"{len(made) - len(survivors)} of {len(made)} mutants of {asked.helper} are caught; the others:")
    for line, column, was, becomes, _ in sorted(survivors):
        print(f"  line {line}, column {column}: {was}  ->  {becomes}")
