"""Runs that are trained together: which they are, and how a pass that was killed is found again.

A worker that has claimed a run claims with it the runs that can be trained in the same pass. Who belongs to the pass is
written down before it starts: started again, the same runs go on from the last checkpoint together. A pass that failed
may have needed too much memory; its runs are tried again in a pass of half the size (`passes` says when).
"""

from __future__ import annotations

import logging
import shutil
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property

from trimtab.sweeps.configuration import Configuration, canonical_json, content_hash
from trimtab.sweeps.directory import SweepDirectory
from trimtab.sweeps.grid import Grid
from trimtab.sweeps.passes import Pass, is_of_use, largest
from trimtab.sweeps.run import BaseModels, clear_leftovers, reset_peak_memory
from trimtab.sweeps.selection import settled
from trimtab.training import Job, train_together, why_not_together

logger = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds to wait for a claim on a run of a pass that goes on: another worker may hold it for a moment only."""


@dataclass(frozen=True)
class Group:
    """Runs of one pass, in the order of its adapters."""

    members: tuple[Configuration, ...]

    @cached_property
    def hash(self) -> str:
        """Names the group; of the form of a run's."""
        return content_hash({"together": [run.training_hash for run in self.members]})

    def describe(self) -> str:
        """The group in a line."""
        first = self.members[0]
        return f"{len(self.members)} runs together, {first.task_name}, {first.model}"


@contextmanager
def claimed_group(
    run: Configuration, waiting: Sequence[Configuration], grid: Grid, directory: SweepDirectory
) -> Iterator[Group | None]:
    """Within `with`, this process alone works on `run`, and on the runs that are to be trained together with it.

    None: another process works on it, or will go on with its group. A group of one is run alone.

    Args:
        run: the run that is wanted.
        waiting: all runs that can be started.
        grid: of all runs; its recipe says how many are trained together at most.
        directory: where the claims are.
    """
    with ExitStack() as claims:
        yield _group(run, waiting, grid, directory, claims)


def _group(
    run: Configuration, waiting: Sequence[Configuration], grid: Grid, directory: SweepDirectory, claims: ExitStack
) -> Group | None:
    """What `claimed_group` yields; the claims are kept in `claims`."""
    together = grid.recipe.together
    if not claims.enter_context(directory.claimed(run)):
        return None
    if together == 1 or not _is_open(run, directory):
        return Group((run,))
    known = {each.training_hash: each for cell in grid.cells for each in cell.runs()}
    known |= {each.training_hash: each for each in (*waiting, run)}
    earlier = [each for each in map(Pass, directory.groups()) if run.training_hash in each.members]
    for each in earlier:
        if len(each.members) <= together and _can_go_on(each, known, directory):
            try:
                if resumed := _resumed(run, [known[member] for member in each.members], directory, claims):
                    return resumed
            except _LeftToAnotherError:
                return None
    return _fresh(run, waiting, largest(earlier, together), directory, claims)


def train_group(
    group: Group, directory: SweepDirectory, bases: BaseModels
) -> list[tuple[Configuration, FloatingPointError]]:
    """Train the members of a group that are not trained yet, from the last checkpoint if there is one.

    The caller has claimed them.

    Returns:
        Those that diverged, with their errors.
    """
    first = group.members[0]
    reset_peak_memory(bases.device)
    model, tokenizer = bases.get(first.model, first.training)
    home = Pass(directory.group(group.hash))
    untrained = [directory.training(run) for run in group.members if not _trained(run, directory)]
    for training in untrained:
        clear_leftovers(training)
    jobs = [Job(run.method, run.training, directory.training(run).path) for run in group.members]

    def start() -> list[FloatingPointError | None]:
        return train_together(model, jobs, first.task, home.directory, tokenizer=tokenizer, progress=False)

    with home.started([run.training_hash for run in group.members]):
        try:
            errors = start()
        except FileExistsError:
            # These directories are the members' own: they hold another version's recipes.
            for path in (home.directory, *(training.path for training in untrained)):
                shutil.rmtree(path, ignore_errors=True)
            errors = start()
    home.forget()
    return [(run, error) for run, error in zip(group.members, errors, strict=True) if error is not None]


def give_up(group: Group, directory: SweepDirectory, error: Exception) -> None:
    """After an error: the next pass of these runs begins anew and is half as large, down to runs that are alone."""
    said = "".join(traceback.format_exception(error))
    logger.warning("%s: the pass failed and is tried with half as many.\n%s", group.describe(), said)
    Pass(directory.group(group.hash)).give_up()


def forget_groups(grid: Grid, directory: SweepDirectory) -> None:
    """When nothing is left to do: remove what is left of groups that are nobody's work.

    These are the groups of which all members are the grid's, and those that no sweep can go on with: with members that
    have been trained elsewhere meanwhile, or of which none waits.
    """
    known = {run.training_hash for cell in grid.cells for run in cell.runs()}
    for group in map(Pass, directory.groups()):
        members = group.members
        if members and (known >= set(members) or not is_of_use(group, directory.runs)):
            with ExitStack() as claims:
                if all(claims.enter_context(directory.claimed(each)) for each in members):
                    group.forget()


def _trained(run: Configuration, directory: SweepDirectory) -> bool:
    training = directory.training(run)
    return training.finished and training.weights.is_dir()


def _is_open(run: Configuration, directory: SweepDirectory) -> bool:
    """Whether a run is still to be trained, could be with others, and has not begun alone."""
    if settled(run, directory) or _trained(run, directory):
        return False
    return directory.training(run).last_checkpoint() is None and why_not_together(run.method) is None


def _kind(run: Configuration) -> str:
    """What runs that are trained together have in common."""
    settings = run.training
    others = {"seed": None, "checkpoint_every": settings.checkpoint_every, "report_to": settings.report_to}
    training = {**run.trained["training"], **others}
    return canonical_json({**run.trained, "method": None, "training": training})


def _can_go_on(group: Pass, known: dict[str, Configuration], directory: SweepDirectory) -> bool:
    """Whether a group has a checkpoint and consists of runs that are trained or waiting."""
    members = group.members
    if not known.keys() >= set(members) or not group.has_checkpoint:
        return False
    return all(_trained(known[each], directory) or not settled(known[each], directory) for each in members)


class _LeftToAnotherError(Exception):
    """Another worker goes on with the group."""


def _resumed(
    run: Configuration, members: list[Configuration], directory: SweepDirectory, claims: ExitStack
) -> Group | None:
    """The group with all claims; None if not all can be claimed.

    Raises:
        _LeftToAnotherError: another worker has the first member that is not trained yet, which decides who goes on.
    """
    first, *others = [each for each in members if not _trained(each, directory)]
    with ExitStack() as taken:
        if first.training_hash != run.training_hash and not taken.enter_context(directory.claimed(first)):
            raise _LeftToAnotherError
        for other in others:
            mine = other.training_hash == run.training_hash
            if not mine and not taken.enter_context(directory.claimed(other, PATIENCE)):
                return None
        claims.push(taken.pop_all())
    return Group(tuple(members))


def _fresh(
    run: Configuration, waiting: Sequence[Configuration], limit: int, directory: SweepDirectory, claims: ExitStack
) -> Group:
    """`run` with as many others as can be claimed, those with its seed first: they read the same examples."""
    members = {run.training_hash: run}
    kind = _kind(run)
    alike = [each for each in waiting if _is_open(each, directory) and _kind(each) == kind] if limit > 1 else []
    for other in sorted(alike, key=lambda each: each.seed != run.seed):
        if len(members) >= limit:
            break
        if other.training_hash in members:
            continue
        with ExitStack() as taken:
            if taken.enter_context(directory.claimed(other)) and _is_open(other, directory):
                claims.push(taken.pop_all())
                members[other.training_hash] = other
    return Group(tuple(members.values()))
