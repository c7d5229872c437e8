"""From typed functions to a parser: a verb's signature is its options, its docstring their help.

A parameter whose type is a dataclass stands for a group of options, one a field, without a prefix:
`settings: TrainingSettings` gives `--epochs`, `--batch_size` and so on. A YAML recipe (`--config`) has the
same names, and what stands behind it on the command line overrides it.
"""

from __future__ import annotations

import difflib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from itertools import takewhile
from typing import Any, NoReturn, get_type_hints

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, get_loader, set_loader

from trimtab.cli.recipes import RecipeError, flatten, is_of_a_run

Verb = Callable[..., None]

_MODE = "recipe"
_FIRST_WORDS = {
    "sweep": ("config",),
    "advise": ("model",),
    "analyze": ("model", "adapter"),
    "distill": ("base", "tuned"),
    "report": ("results+",),
    "export": ("format",),
}
"""The options that a verb's first words stand for: `trimtab sweep RECIPE` is `trimtab sweep --config RECIPE`.
A name with a plus stands for all words that follow: they are its list."""
# The messages of argparse and jsonargparse in which something is misspelt.
_UNKNOWN = (
    re.compile(r"unrecognized arguments: (-\S+)", re.IGNORECASE),
    re.compile(r"does not accept option '(\S+)'"),
    re.compile(r"Option '(\S+)' is not accepted"),
    re.compile(r"invalid choice: '(\S+)'"),
)


class UsageError(ValueError):
    """What was asked for does not exist: a name, an option or a value that the library refuses."""


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn a ValueError of the block into UsageError: for the part of a verb that only reads its options."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


class Parser(ArgumentParser):
    """jsonargparse's parser, with an error of two lines that names the nearest option."""

    first_words: tuple[str, ...] = ()
    """The options that the first words stand for, as far as they are no options themselves."""

    def parse_args(self, args: Any = None, *others: Any, **options: Any) -> Any:
        """Parse; the first words get the names of the options that they stand for, and - in an option's name is _."""
        if args:
            names = list(self.first_words)
            if names and names[-1].endswith("+"):
                names += names[-1:] * len(args)
            words = list(takewhile(lambda word: not word.startswith("-"), args[: len(names)]))
            named = [f"--{option}={_expanded(word)}" for option, word in zip(names, words, strict=False)]
            args = [*named, *map(self._as_declared, args[len(words) :])]
        return super().parse_args(args, *others, **options)

    def _as_declared(self, word: str) -> str:
        """An option under the name that it has here: `--data-dir` is `--task_options.data_dir` where there are any."""
        if not word.startswith("--"):
            return _expanded(word)
        option, equals, value = word.partition("=")
        name, dot, key = option.removeprefix("--").partition(".")
        name = name.replace("-", "_")  # not in the key, which can be a method's name
        if name == "data_dir" and "--task_options" in self._option_string_actions:
            name = "task_options.data_dir"
        return f"--{name}{dot}{key}{equals}{_expanded(value)}"

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and what may have been meant; exit with code 2."""
        parser = getattr(ex, "subcommand_parser", None) or self
        prog = parser.prog.replace(" [options]", "")
        text = message.removesuffix(".") + "." + _hint(message, parser)
        sys.stderr.write(f"error: {text}\nAll options: {prog} --help\n")
        self.exit(2)


def build_parser(verbs: Mapping[str, Verb]) -> Parser:
    """The parser of `trimtab`, with a subcommand for each verb."""
    set_loader(_MODE, _load_recipe, exceptions=(yaml.YAMLError, RecipeError))
    parser = Parser(
        prog="trimtab",
        description="Adapt language models by steering their residual stream.",
        epilog="Every verb: trimtab VERB --help. Options can stand in a YAML file: --config FILE.",
        parser_mode=_MODE,  # jsonargparse gives it to the subcommands
    )
    subcommands = parser.add_subcommands(title="verbs", metavar="VERB")
    for name, verb in verbs.items():
        verb_parser = _verb_parser(verb)
        verb_parser.first_words = _FIRST_WORDS.get(name, ())
        subcommands.add_subcommand(name, verb_parser, help=_summary(verb))
    return parser


def call(verb: Verb, values: dict[str, Any]) -> None:
    """Call `verb` with parsed options, those of a dataclass put back into one.

    Raises:
        UsageError: a dataclass refuses its values.
    """
    arguments: dict[str, Any] = {}
    groups = _groups(verb)
    with usage_errors():
        for name in inspect.signature(verb).parameters:
            if name in groups:
                group = groups[name]
                arguments[name] = group(**{each.name: values[each.name] for each in fields(group)})
            else:
                arguments[name] = values[name]
    verb(**arguments)


def _verb_parser(verb: Verb) -> Parser:
    parser = Parser(description=_summary(verb))
    parser.add_argument("--config", action=ActionConfigFile, help="a YAML recipe, or the recipe.yaml of a run")
    groups = _groups(verb)
    parser.add_function_arguments(verb, skip=set(groups))
    for group in groups.values():
        parser.add_class_arguments(group)
    for action in parser._actions:
        if getattr(action, "_typehint", None) in (bool, bool | None):
            action.nargs, action.const = "?", True  # `--overwrite` alone means `--overwrite true`
    return parser


def _groups(verb: Verb) -> dict[str, Any]:
    """The parameters of a verb that are dataclasses."""
    return {name: hint for name, hint in get_type_hints(verb).items() if is_dataclass(hint)}


def _summary(verb: Verb) -> str:
    return (inspect.getdoc(verb) or "").partition("\n\n")[0].replace("\n", " ")


def _expanded(value: str) -> str:
    """A path in the user's home, which a shell leaves as it is behind an equals sign."""
    return os.path.expanduser(value) if value.startswith("~/") else value


def _load_recipe(text: str) -> Any:
    """YAML as jsonargparse reads it; the recipe of a run directory becomes the options that led to it."""
    loaded = get_loader("yaml")(text)
    return flatten(loaded) if is_of_a_run(loaded) else loaded


def _hint(message: str, parser: ArgumentParser) -> str:
    for pattern in _UNKNOWN:
        if found := pattern.search(message):
            break
    else:
        return ""
    known = set(parser._option_string_actions)
    verbs = parser._subcommands_action.choices if parser._subcommands_action else {}
    wanted = found[1].partition("=")[0]
    if not wanted.startswith("-"):
        known = {option.lstrip("-") for option in known} | set(verbs)
    nearest = difflib.get_close_matches(wanted, sorted(known), n=1, cutoff=0.5)
    return f" Did you mean {nearest[0]}?" if nearest else ""
