"""Examples as token ids: prompts as for generation, completions behind them."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from tiny_language import EOS, byte_tokenizer
from trimtab.encoding import encode_example, encode_prompt, length_batches
from trimtab.tasks import Example

EXAMPLE = Example(prompt="one two\n", completion="three", label="three", id="a")


def test_prompt_and_completion_spell_the_text() -> None:
    """Together they are the tokens of the text; the border is where the prompt ends; nothing is appended."""
    tokenizer = byte_tokenizer()
    encoded = encode_example(tokenizer, EXAMPLE)
    assert tokenizer.decode(encoded.prompt) == "one two\n"
    assert tokenizer.decode(encoded.completion) == "three"
    assert encoded.prompt == encode_prompt(tokenizer, EXAMPLE)
    assert len(encoded) == len("one two\nthree")


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words, and a beginning-of-text token in front."""
    words = ["<bos>", "<unk>", "one", "two", "three", "twothree"]
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[1]))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=words[0])


def test_a_token_across_the_border_is_not_made() -> None:
    """ "two" + "three" would be one word: the prompt stays what the model sees when it is asked."""
    joined = Example(prompt="one two", completion="three", label="", id="a")
    encoded = encode_example(word_tokenizer(), joined)
    assert (encoded.prompt, encoded.completion) == ([0, 2, 3], [4])


def test_the_beginning_of_text_comes_once() -> None:
    """In front of the prompt and not in front of the completion."""
    encoded = encode_example(word_tokenizer(), EXAMPLE)
    assert (encoded.prompt, encoded.completion) == ([0, 2, 3], [4])


def test_chat_trains_the_answer_and_the_end_of_its_turn() -> None:
    """The prompt ends where the assistant's words begin; the line break behind its turn is not trained."""
    tokenizer = byte_tokenizer(chat=True)
    encoded = encode_example(tokenizer, EXAMPLE, chat=True)
    assert tokenizer.decode(encoded.prompt) == f"user:one two\n{EOS}\nassistant:"
    assert tokenizer.decode(encoded.completion) == f"three{EOS}"
    assert encoded.prompt == encode_prompt(tokenizer, EXAMPLE, chat=True)


def test_a_conversation_of_its_own_replaces_the_plain_text() -> None:
    """With messages, chat uses them; without chat, the plain text."""
    tokenizer = byte_tokenizer(chat=True)
    turns = (
        {"role": "system", "content": "S"},
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": "A"},
    )
    example = Example(prompt="p", completion="c", label="", id="a", messages=turns)
    assert tokenizer.decode(encode_prompt(tokenizer, example, chat=True)) == f"system:S{EOS}\nuser:U{EOS}\nassistant:"
    assert tokenizer.decode(encode_example(tokenizer, example, chat=True).completion) == f"A{EOS}"
    assert tokenizer.decode(encode_prompt(tokenizer, example)) == "p"


def test_chat_without_a_template_is_refused() -> None:
    """It says what is missing."""
    with pytest.raises(ValueError, match="chat template"):
        encode_prompt(byte_tokenizer(), EXAMPLE, chat=True)


def test_an_empty_completion_is_refused() -> None:
    """It names the example."""
    with pytest.raises(ValueError, match="'b' has an empty completion"):
        encode_example(byte_tokenizer(), Example(prompt="p", completion="", label="", id="b"))


def test_batches_stay_within_the_tokens_and_hold_everything_once() -> None:
    """Rows x (longest + new) <= the budget, except for a single example that is longer by itself."""
    lengths = [5, 100, 7, 7, 30, 1, 60, 2]
    batches = list(length_batches(lengths, 10, 80))
    assert sorted(index for batch in batches for index in batch) == list(range(8))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * (max(lengths[i] for i in batch) + 10) <= 80
    assert len(batches) < 8


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('Roles must alternate.') }}", "Roles must alternate"),
        ("{% if messages[-1]['role'] == 'assistant' %}{{ raise_exception('No answers') }}{% endif %}", "No answers"),
        ("{{ messages[9]['content'] }}", "has no element 9"),
        ("{% for m in messages %}", "Unexpected end of template"),
    ],
)
def test_a_template_that_refuses_a_conversation_says_why(template: str, reason: str) -> None:
    """In its own words and in one line, with the example's id; also where it refuses the answer only."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(ValueError, match=rf"Example 'a' cannot be written .*chat template: .*{reason}.*\.$") as caught:
        encode_example(tokenizer, EXAMPLE, chat=True)
    assert "\n" not in str(caught.value)
