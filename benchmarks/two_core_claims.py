"""The paper's claims on the sweeps for two cores, on the tasks that are complete there.

    trimtab sweep recipes/smol-table1.yaml     # and smol-table2.yaml, smol-table4.yaml: they share a directory; resumes
    python benchmarks/two_core_claims.py       # the page's third table; seconds

Judged as in claims.py. Writes two_core_claims.jsonl into benchmarks/results, and a table of docs/claims.md.
"""

from __future__ import annotations

from _sweep_options import sweep_options
from claims import CLAIMS, judge

NOT_IN_THE_TABLES = "post-block-nonlinear"
"""The method of the claims that is in none of tables 1, 2 and 4."""

PAIRS = tuple(claim for claim in CLAIMS if NOT_IN_THE_TABLES not in (claim.method, claim.than))


def main() -> None:
    """Judge the pairs on the sweeps of the three tables."""
    judge(PAIRS, "two_core_claims", "claims.md", sweep_options(__doc__, "smol"))


if __name__ == "__main__":
    main()
