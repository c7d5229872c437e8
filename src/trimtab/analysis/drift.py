"""How far training has moved a model on texts that have nothing to do with the task: what PEFT calls forgetting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.analysis.base import Analysis, AnalysisOptions, Finding, needs_oracle
from trimtab.analysis.next_tokens import NextTokens, State, head_is_last
from trimtab.analysis.stream import Batch, batches
from trimtab.analysis.subject import Subject
from trimtab.analysis.texts import encode_texts, read_texts
from trimtab.models import AnyModel, context_length
from trimtab.tuners.steering import get_strengths, strength

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drift(Finding):
    """The distance of an adapted model's next-token distributions q from the base's p on some texts.

        divergence     KL(p || q) = sum_v p(v) (log p(v) - log q(v)),     mean over the tokens t of a text
        loss_increase  log p(x_t+1) - log q(x_t+1),                       mean over the tokens that have a next one

    Both in nats a token. The first asks how much anything has changed, the second whether it became worse; what PEFT's
    method comparison calls forgetting is of the second kind.

    Attributes:
        texts: where the texts are from.
        strengths: the adapter's, one a row of what follows; None where there is no dial, and one row.
        tokens: (texts,) how many tokens each text has.
        divergence: (settings, texts).
        loss_increase: (settings, texts); NaN for a text of one token.
    """

    texts: str
    strengths: tuple[float, ...] | None
    tokens: tuple[int, ...]
    divergence: Float[Tensor, "settings texts"]
    loss_increase: Float[Tensor, "settings texts"]

    @property
    def mean_divergence(self) -> tuple[Float[Tensor, " settings"], Float[Tensor, " settings"]]:
        """The mean over all tokens of all texts, and its standard error."""
        return token_mean(self.divergence, torch.tensor(self.tokens))

    @property
    def mean_loss_increase(self) -> tuple[Float[Tensor, " settings"], Float[Tensor, " settings"]]:
        """Likewise."""
        return token_mean(self.loss_increase, torch.tensor(self.tokens) - 1)

    def figure(self) -> Figure:
        """Both over the strength with their standard errors; without a dial every text, in ascending order."""
        from trimtab.figures import figure

        with figure("drift", 9, 3.2) as drawing:
            panels = drawing.subplots(1, 2)
            self._panel(panels[0], self.divergence, *self.mean_divergence)
            self._panel(panels[1], self.loss_increase, *self.mean_loss_increase)
            panels[0].set_ylabel("KL(base || adapted), nats a token")
            panels[1].set_ylabel("increase of the loss, nats a token")
            panels[0].set_ylim(bottom=0)
        return drawing

    def _panel(self, axes: Axes, values: Tensor, mean: Tensor, error: Tensor) -> None:
        from trimtab.figures import MUTED, series

        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.grid(axis="y")
        if self.strengths is not None:
            axes.errorbar(self.strengths, mean, yerr=error, **series(0))
            axes.set_xlabel("strength")
            axes.set_xticks(self.strengths, [f"{each:g}" for each in self.strengths])
            return
        ordered = values[0].sort().values
        axes.plot(range(1, len(ordered) + 1), ordered, **{**series(0), "linestyle": ""})
        axes.axhline(float(mean), color=MUTED, linestyle=(0, (4, 3)), label=f"mean {float(mean):.3g}")
        axes.set_xlabel("text, in ascending order")
        axes.legend()

    @property
    def caption(self) -> str:
        """What is drawn."""
        over = "against the adapter's strength, with standard errors over texts" if self.strengths else "of every text"
        return (
            f"KL divergence of the adapted model's next-token distributions from the base's, and the increase of the "
            f"loss on the next token, {over}. Texts: {self.texts} ({len(self.tokens)} texts, {sum(self.tokens):,} "
            "tokens). The paper does not measure it; PEFT's method comparison measures the second as forgetting."
        )

    @property
    def summary(self) -> str:
        """The two means, with errors, at each strength."""
        (kl, kl_error), (loss, loss_error) = self.mean_divergence, self.mean_loss_increase
        rows = zip(
            self.strengths or (None,), *(each.tolist() for each in (kl, kl_error, loss, loss_error)), strict=True
        )
        said = [
            ("" if value is None else f"at strength {value:g}, ")
            + f"KL {kl:.3g} ± {kl_error:.2g} and loss {loss:+.3g} ± {loss_error:.2g} nats a token"
            for value, kl, kl_error, loss, loss_error in rows
        ]
        text = "; ".join(said)
        return f"{text[0].upper()}{text[1:]} (mean ± standard error over {len(self.tokens)} texts)."


def drift(
    subject: Subject,
    texts: Sequence[Sequence[int]],
    *,
    strengths: Sequence[float] | None = None,
    batch_tokens: int = 2048,
    name: str = "given",
) -> Drift:
    """Compare what was trained with its base on texts, token by token.

    The base runs once for all strengths. Of the distributions a block of tokens exists at a time, where the head is the
    last thing that the model computes; else (soft-capped or scaled logits) those of one text, of the base and of one
    strength.

    Args:
        subject: the base, and an adapter on it or a fine-tuned copy. In bfloat16 logits are rounded to about 1 %, which
            looks like a divergence of some 1e-4.
        texts: token ids.
        strengths: of the steering adapter; None: as it is.
        batch_tokens: tokens of a batch, padding included.
        name: what the finding calls the texts.

    Raises:
        ValueError: nothing was trained, strengths for something that has no dial, no texts, or an empty one.
    """
    if not texts or not all(texts):
        raise ValueError("There must be texts to compare on, and none of them may be empty.")
    states: list[State] = [subject.as_tuned]
    if strengths is not None:
        if not has_dial(subject):
            raise ValueError("What was trained has no dial: leave the strengths out.")
        states = [partial(_at_strength, subject, each) for each in strengths]
    hidden = head_is_last(subject.as_base) and head_is_last(states[0])
    shape = (len(states), len(texts))
    kl, loss = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))
    for batch in batches(texts, batch_tokens=batch_tokens if hidden else 1):
        base = NextTokens.read(subject.as_base, batch, hidden=hidden)
        if hidden:
            _add(batch, base, [NextTokens.read(state, batch, hidden=True) for state in states], kl, loss)
            continue
        for setting, state in enumerate(states):  # one by one: what is kept of each are the logits of a whole text
            row = slice(setting, setting + 1)
            _add(batch, base, [NextTokens.read(state, batch, hidden=False)], kl[row], loss[row])
    tokens = torch.tensor([len(text) for text in texts])
    return Drift(
        texts=name,
        strengths=None if strengths is None else tuple(strengths),
        tokens=tuple(tokens.tolist()),
        divergence=kl / tokens,
        loss_increase=loss / (tokens - 1),  # 0 / 0 for a text of one token
    )


def _add(batch: Batch, base: NextTokens, tuned: Sequence[NextTokens], kl: Tensor, loss: Tensor) -> None:
    """Add the sums over the tokens of a batch to (settings, texts)."""
    rows = batch.kept.nonzero()[:, 0]
    owners = torch.tensor(batch.prompts)[rows]
    following = torch.full_like(rows, -1)  # the id of the next token; -1 behind the last one of a text
    same = rows[1:] == rows[:-1]
    following[:-1][same] = batch.ids[batch.kept][1:][same]
    for block in base.blocks():
        log_p = base.log_probabilities(block)
        p, next_ids = log_p.exp(), following[block].to(log_p.device)
        for setting, each in enumerate(tuned):
            log_q = each.log_probabilities(block).to(log_p)
            # A word that the base rules out (log p = -inf) does not count, whatever q says of it.
            terms = torch.where(p > 0, p * (log_p - log_q), 0).sum(1)
            change = (log_p - log_q).gather(1, next_ids.clamp(min=0)[:, None])[:, 0]
            for total, values in ((kl, terms), (loss, torch.where(next_ids < 0, 0, change))):
                total[setting].index_add_(0, owners[block], values.cpu().double())


def token_mean(
    values: Float[Tensor, "settings texts"], tokens: Tensor
) -> tuple[Float[Tensor, " settings"], Float[Tensor, " settings"]]:
    """The mean over the tokens of all texts, and its standard error with whole texts as the independent draws.

        m = sum_i n_i v_i / N,   N = sum_i n_i       error = sqrt( k / (k - 1) sum_i (n_i (v_i - m))^2 ) / N

    for k texts of n_i tokens with means v_i (a ratio estimate's error, to first order). Tokens of one text depend on
    each other, so they are not counted as draws.

    Args:
        values: means over the tokens of each text.
        tokens: n_i; texts with 0 are left out.

    Returns:
        m and its error, which is NaN for a single text.
    """
    counted = tokens > 0
    values, shares = values[:, counted], tokens[counted] / tokens[counted].sum()
    mean = (values * shares).sum(1)
    texts = int(counted.sum())
    spread = (shares * (values - mean[:, None])).square().sum(1)
    return mean, (spread * texts / (texts - 1)).sqrt() if texts > 1 else torch.full_like(mean, torch.nan)


def has_dial(subject: Subject) -> bool:
    """Whether what was trained is an adapter with a strength."""
    return subject.tuned is None and bool(get_strengths(subject.model))


@contextmanager
def _at_strength(subject: Subject, value: float) -> Iterator[AnyModel]:
    """What was trained, its dial at `value`."""
    with subject.as_tuned() as model, strength(model, value):
        yield model


def _texts(subject: Subject, options: AnalysisOptions) -> list[list[int]]:
    longest = min(options.batch_tokens, context_length(subject.model) or options.batch_tokens)
    return encode_texts(subject.tokenizer, read_texts(options.texts, options.max_texts), longest)


def _needs_texts(subject: Subject, options: AnalysisOptions) -> str | None:
    """The model can read the texts. That there are none is an error, and no reason to leave the analysis out."""
    embeddings: Any = subject.model.get_input_embeddings()
    known = int(embeddings.weight.shape[0])
    if max(map(max, _texts(subject, options))) < known:
        return None
    return f"The tokenizer is not the model's: it has tokens beyond the {known:,} that the model knows."


def _measure(subject: Subject, options: AnalysisOptions) -> Drift:
    return drift(
        subject,
        _texts(subject, options),
        strengths=options.strengths if has_dial(subject) else None,
        batch_tokens=options.batch_tokens,
        name=options.texts or "written for trimtab, of many kinds",
    )


ANALYSIS = Analysis(title="Drift on unrelated text", measure=_measure, needs=(needs_oracle, _needs_texts))
