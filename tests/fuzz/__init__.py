"""Differential fuzzing: generated ops and networks, compiled, against the interpreter.

    python -m tests.fuzz --minutes 10            a long run (from the repository's root)
    python -m tests.fuzz --only ops --seed 7     one kind of cases, from seed 7 on
    python -m tests.fuzz.mutations               the mutation score: what the fuzzer is worth

Every case follows from one seed, so that the seed alone repeats it. `draw`, `values` and `maker`
make what cases are made of, `op_cases` and `networks` make the cases, `errors` says how far a
result may be off, `oracles` runs and judges, `shrink` keeps what fails, `campaign` repeats all of
it. Some families of ops have cases and errors in one module: `indexing_cases` and others.
"""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
if str(TESTS) not in sys.path:  # `strategies` and `harness` are modules of their own
    sys.path.insert(0, str(TESTS))

from . import indexing_cases, quantised_cases, recurrent_cases, sampling_cases  # noqa: E402, F401
