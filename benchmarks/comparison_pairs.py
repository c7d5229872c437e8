"""Pairs of methods of the comparison: the paper's claims, and what else its tables invite to say.

    trimtab sweep recipes/smol-comparison.yaml --together 6    # many hours; resumes
    python benchmarks/comparison_pairs.py                        # the page's table of pairs; seconds

Judged as in claims.py: the mean over the test examples that both answered, its standard error from the examples and the
two seeds, and a verdict where twice the error leaves no doubt. Writes comparison_pairs.jsonl into benchmarks/results,
and the table of docs/comparison.md.
"""

from __future__ import annotations

from _sweep_options import sweep_options
from claims import CLAIMS, Claim, judge

NOT_RUN = "post-block-r64"
"""A method of the paper's claims that the comparison does without: no rank but 1, 8 and 16 is a name of its table."""

PAIRS = (
    *(claim for claim in CLAIMS if NOT_RUN not in (claim.method, claim.than)),
    Claim("Post-block of h / rms(h) with a bias is at most 1 point behind LoRA", "post-block-normalized", "lora", 1.0),
    Claim("Rank 8 is better after the block than on what the MLP reads", "post-block", "pre-mlp"),
    Claim("Rank 8 is better after the block than after attention", "post-block", "post-attention"),
    Claim("Rank 8 is better after the block than after the MLP", "post-block", "post-mlp"),
    Claim("A vector is better on what the MLP reads than after the block", "pre-mlp-vector", "1-vec"),
    Claim("ReFT is better on all tokens than on the first and last seven", "reft-all", "reft"),
    Claim("ReFT is better on the first and last seven tokens than on the last", "reft", "reft-last"),
    Claim("ReFT on all tokens is better than post-block", "reft-all", "post-block"),
    Claim("ReFT is better after the MLP than after the block", "reft", "reft-block"),
    Claim("Four times the rate for its LoRA half makes joint-orth better", "joint-orth, LoRA x 4", "joint-orth"),
    Claim("Four times the rate for its LoRA half makes joint better", "joint, LoRA x 4", "joint"),
)


def main() -> None:
    """Judge the pairs on the sweep of the comparison."""
    judge(PAIRS, "comparison_pairs", "comparison.md", sweep_options(__doc__, "smol"))


if __name__ == "__main__":
    main()
