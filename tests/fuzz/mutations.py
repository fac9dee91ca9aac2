"""The mutation score: which of the seeded miscompiles the fuzzer finds, and how soon.

    python -m tests.fuzz.mutations --cases 400 --report score.json
    python -m tests.fuzz.mutations --quantised      # of quantised models, by cases of such ops

Each mutant runs in a process of its own, with a cache of kernels that lacks those it changes. What
the fuzzer then calls a failure counts where the same case passes without the mutant; so do a crash
and a process that never ends. Those that name tests of their own are tried with these instead. Of a
mutant that is not found it is told whether its function ran.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lucid.runtime.cache import ENTRY, default_folder

from .mutant import EVERY, Mutant
from .mutants import MUTANTS
from .quantised_mutants import QUANTISED

SEED = 77
"""Of the cases that every mutant is tried with, from the first on."""
CASES = 1000
"""Tried for each mutant, at most."""
KINDS_TRIED = ("ops", "quantised", "networks", "metamorphic")
"""Those of cases that run compiled code."""
ALONE = ("quantised",)
"""The one kind that mutants of quantised models can be tried with, in a tenth of the time."""
NOTHING = "nothing"
"""The name of no mutant: all cases have to pass, and their kernels fill the cache."""
PATIENCE = 1200.0
"""Seconds after which a process is taken to hang."""


CALLS = "_calls_of_the_mutant"
"""Where a changed function notes that it ran, among the names of its module."""


class StaleError(LookupError):
    """The source no longer says what a mutant changes."""


# -- changing the compiler ------------------------------------------------------------------------


def function_of(where: str) -> Any:
    """The function object of `module:name` or `module:Class.name`, without what wraps it."""
    module_name, _, path = where.partition(":")
    found: Any = importlib.import_module(module_name)
    for part in path.split("."):
        found = inspect.getattr_static(found, part)
    found = getattr(found, "__func__", found)
    return inspect.unwrap(found)


def changed_code(mutant: Mutant) -> Any:
    """The code of the function with the mutant's change. Raises StaleError."""
    function = function_of(mutant.where)
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(mutant.old) < 1:
        raise StaleError(f"{mutant.where} does not say {mutant.old!r} any more: {mutant.name}")
    tree = ast.parse(source.replace(mutant.old, mutant.new))
    (definition,) = tree.body
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list = []
    definition.body.insert(0, ast.parse(f"{CALLS}.append(None)").body[0])
    function.__globals__[CALLS] = []
    tree.body.insert(0, *ast.parse("from __future__ import annotations").body)
    scope: dict[str, Any] = {}
    code = compile(tree, inspect.getfile(function), "exec")
    exec(code, function.__globals__, scope)
    made = scope[definition.name]
    assert made.__code__.co_freevars == function.__code__.co_freevars, mutant.where
    return made.__code__


def apply(mutant: Mutant) -> None:
    """Change the compiler of this process, wherever the function is known."""
    function_of(mutant.where).__code__ = changed_code(mutant)


# -- one mutant, in a process of its own ----------------------------------------------------------


def try_one(name: str, cases: int, kinds: Sequence[str] = KINDS_TRIED) -> dict[str, Any]:
    """Fuzz with this mutant, or with none, until something fails: what, after how many cases, and
    how often the changed function ran."""
    from .campaign import run

    mutant = next((m for m in MUTANTS if m.name == name), None)
    if mutant is not None:
        apply(mutant)
    start = time.process_time()
    report = run(SEED, cases=cases, only=kinds, stop_at_first=True)
    found = report.failures[0] if report.failures else None
    calls = len(function_of(mutant.where).__globals__[CALLS]) if mutant is not None else 0
    seconds = time.process_time() - start
    return {"cases": report.cases, "seconds": seconds, "found": found, "calls": calls}


def try_tests(name: str) -> int:
    """Run the tests that have to find this mutant with it; 1 where they do."""
    import pytest

    (mutant,) = (m for m in MUTANTS if m.name == name)
    apply(mutant)
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", mutant.tests]))


def replay(kind: str, seed: int) -> bool:
    """Whether the case passes here."""
    from .campaign import KINDS
    from .oracles import Tally

    return KINDS[kind](seed, Tally()) is None


# -- all of them ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant. `how`: what gave it away, or why it does not count."""

    mutant: Mutant
    found: bool
    how: str
    cases: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.mutant.name,
            "where": self.mutant.where,
            "found": self.found,
            "how": self.how,
            "cases": self.cases,
            "seconds": round(self.seconds, 1),
        }


def without(families: Sequence[str], source: Path, folder: Path) -> None:
    """A copy of a cache of kernels that lacks those of some families."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if families == EVERY or not source.is_dir():
        return
    for entry in source.glob(f"*{ENTRY}"):
        if entry.name.partition("-")[0] not in families:
            shutil.copy2(entry, folder / entry.name)


def judge(mutant: Mutant, cases: int, warm: Path, kinds: Sequence[str] = KINDS_TRIED) -> Verdict:
    """Run a mutant on cases of these kinds, and what it fails on without it."""
    with tempfile.TemporaryDirectory(prefix="lucid-mutant-") as folder:
        cache = Path(folder) / "kernels"
        without(mutant.families, warm, cache)
        if mutant.tests:
            changed_code(mutant)  # whatever cannot be applied fails in any test
            return _judged_by_tests(mutant, cache)
        ran = _python(_one(mutant.name, cases, kinds), cache)
    if ran is None:
        return Verdict(mutant, True, "the process hangs")
    if ran.returncode < 0:
        return Verdict(mutant, True, f"the process dies of signal {-ran.returncode}")
    if ran.returncode:
        return Verdict(mutant, False, f"error: {ran.stderr[-300:]}")
    told = json.loads(ran.stdout.splitlines()[-1])
    found, tried, seconds = told["found"], told["cases"], told["seconds"]
    if found is None:
        how = f"not found, though it ran {told['calls']} times" if told["calls"] else "never ran"
        return Verdict(mutant, False, how, tried, seconds)
    again = _python(["--replay", found["kind"], str(found["seed"])], warm)
    if again is None or again.returncode:
        how = f"{found['kind']} {found['seed']} fails without it"
        return Verdict(mutant, False, how, tried, seconds)
    first = found["detail"].splitlines()[0][:160]
    return Verdict(mutant, True, f"{found['kind']}: {first}", tried, seconds)


def _one(name: str, cases: int, kinds: Sequence[str]) -> list[str]:
    """The arguments that try a mutant in this module's process."""
    return ["--one", name, "--cases", str(cases), *(["--quantised"] if kinds == ALONE else [])]


def _judged_by_tests(mutant: Mutant, cache: Path) -> Verdict:
    ran = _python(["--tests", mutant.name], cache)
    if ran is None:
        return Verdict(mutant, True, "the process hangs")
    if ran.returncode < 0:
        return Verdict(mutant, True, f"the process dies of signal {-ran.returncode}")
    lines = [line for line in ran.stdout.splitlines() if line.startswith("FAILED")]
    how = lines[0].partition("::")[2] if lines else ran.stdout[-300:]
    return Verdict(mutant, ran.returncode == 1, how)


def _python(arguments: list[str], cache: Path) -> subprocess.CompletedProcess[str] | None:
    """This module in another process; None where it takes too long."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz.mutations", *arguments]
    environment = os.environ | {"LUCID_CACHE_DIR": str(cache)}
    try:
        return subprocess.run(
            command,
            env=environment,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return None


def score(verdicts: Sequence[Verdict]) -> str:
    """The share found, and the names of those that were not."""
    found = sum(v.found for v in verdicts)
    lost = [f"  {v.mutant.name}: {v.how}" for v in verdicts if not v.found]
    return "\n".join([f"{found} of {len(verdicts)} found", *lost])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.mutations", description=__doc__)
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--only", action="append", help="mutants whose name holds this")
    parser.add_argument("--quantised", action="store_true", help="these, by cases of their ops")
    parser.add_argument("--one", help="try one in this process")
    parser.add_argument("--tests", help="try one in this process with its tests")
    parser.add_argument("--replay", nargs=2, help="one case without any")
    chosen = parser.parse_args()
    kinds, mutants = (ALONE, QUANTISED) if chosen.quantised else (KINDS_TRIED, MUTANTS)
    if chosen.one is not None:
        print(json.dumps(try_one(chosen.one, chosen.cases, kinds)))
        return 0
    if chosen.tests is not None:
        return try_tests(chosen.tests)
    if chosen.replay:
        return int(not replay(chosen.replay[0], int(chosen.replay[1])))
    wanted = [m for m in mutants if not chosen.only or any(o in m.name for o in chosen.only)]
    before = _python(_one(NOTHING, chosen.cases, kinds), default_folder())
    if before is None or before.returncode or json.loads(before.stdout)["found"]:
        print(f"something fails without any mutant: {before and before.stdout}")
        return 1
    verdicts = []
    for mutant in wanted:
        verdict = judge(mutant, chosen.cases, default_folder(), kinds)
        verdicts.append(verdict)
        sign = "found" if verdict.found else "LOST "
        print(f"{sign} {verdict.cases:4} {mutant.name}: {verdict.how}", flush=True)
        if chosen.report:
            rows = [v.to_json() for v in verdicts]
            chosen.report.write_text(json.dumps(rows, indent=1) + "\n")
    print(score(verdicts))
    return int(any(not v.found for v in verdicts))


if __name__ == "__main__":
    sys.exit(main())
