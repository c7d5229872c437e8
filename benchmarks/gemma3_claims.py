"""The paper's claims on a second model, as far as its methods are in the sweep.

    trimtab sweep recipes/smol-gemma3.yaml     # some hours on two cores; resumes
    python benchmarks/gemma3_claims.py         # the page's second table; seconds

Judged as in claims.py, on one task. Writes gemma3_claims.jsonl into benchmarks/results, and a table of docs/claims.md.
"""

from __future__ import annotations

from _sweep_options import sweep_options
from claims import CLAIMS, Claim, judge

METHODS = {"sft", "lora", "reft", "post-block", "post-block-plus"}
"""Those of recipes/smol-gemma3.yaml."""

PAIRS = (
    *(claim for claim in CLAIMS if {claim.method, claim.than} <= METHODS),
    Claim("Ours: post-block-plus is better than post-block", "post-block-plus", "post-block"),
)


def main() -> None:
    """Judge the pairs on the sweep of gemma-3-270m."""
    judge(PAIRS, "gemma3_claims", "claims.md", sweep_options(__doc__, "smol-gemma3"))


if __name__ == "__main__":
    main()
