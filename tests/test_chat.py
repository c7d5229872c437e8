"""Chat: what the model reads, what the terminal shows, and the dial while talking."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from rich.console import Console
from transformers import PreTrainedModel

from tiny_language import byte_tokenizer, tiny_model
from trimtab import SteeringConfig
from trimtab.chat import ChatSettings, Conversation, Session, reply
from trimtab.chat.generation import RowStreamer

SETTINGS = ChatSettings(form="plain", max_new_tokens=12)


def speaker() -> PreTrainedModel:
    """A tiny random model that says small letters only: what it says is what a terminal shows."""
    model, tokenizer = tiny_model(), byte_tokenizer()
    letters = set(tokenizer("abcdefghijklmnopqrstuvwxyz").input_ids)
    model.generation_config.suppress_tokens = [i for i in range(model.config.vocab_size) if i not in letters]
    return model


def steered(**options: object) -> PeftModel:
    """The same with a random adapter that changes what it says."""
    return get_peft_model(speaker(), SteeringConfig(r=4, init_weights=False, **options)).eval()


def answer(model: PreTrainedModel | PeftModel, text: str, settings: ChatSettings = SETTINGS) -> str:
    """What `generate` of transformers says after `text`, by itself."""
    tokenizer = byte_tokenizer()
    ids = torch.tensor([tokenizer(text).input_ids])
    output = model.generate(input_ids=ids, max_new_tokens=settings.max_new_tokens, do_sample=False)
    return tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


def talk(
    model: PreTrainedModel | PeftModel,
    lines: list[str],
    settings: ChatSettings = SETTINGS,
    template: str | None = None,
    **options: bool,
) -> str:
    """All that a session prints while `lines` are typed."""
    screen = io.StringIO()
    console = Console(file=screen, highlight=False, soft_wrap=True, width=200)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    Session(model, tokenizer, settings, console=console, read=typed(lines), **options).run()
    return screen.getvalue()


def typed(lines: list[str]) -> Callable[[], str]:
    """A reader of lines, with an end."""
    remaining: Iterator[str] = iter(lines)

    def read() -> str:
        try:
            return next(remaining)
        except StopIteration:
            raise EOFError from None

    return read


def test_a_conversation_is_what_the_template_makes_of_all_turns() -> None:
    """The ids equal the template's own, system message and history included."""
    tokenizer = byte_tokenizer(chat=True)
    conversation = Conversation(tokenizer, ChatSettings(form="chat", system="Be brief."))
    conversation.add("hi", "hello")
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "2+2?"},
    ]
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    assert conversation.prompt("2+2?") == list(expected["input_ids"])
    conversation.clear()
    expected = tokenizer.apply_chat_template([messages[0], messages[3]], add_generation_prompt=True)
    assert conversation.prompt("2+2?") == list(expected["input_ids"])


def test_plain_text_goes_to_the_model_line_by_line() -> None:
    """Without a template the prompt is the transcript, each turn ended by a newline."""
    tokenizer = byte_tokenizer()
    conversation = Conversation(tokenizer, ChatSettings(form="plain"))
    conversation.add("hi", "hello")
    assert tokenizer.decode(conversation.prompt("2+2?")) == "hi\nhello\n2+2?\n"


def test_text_appears_token_by_token_and_ends_as_generate_ends() -> None:
    """Each text that is shown begins with the one before; the last is what generate answers."""
    model, seen = speaker(), []
    prompt = byte_tokenizer()("abc\n").input_ids
    (final,) = reply(model, byte_tokenizer(), [prompt], SETTINGS, lambda texts: seen.append(texts[0]))
    assert final == answer(model, "abc\n")
    assert len(seen) == SETTINGS.max_new_tokens
    assert all(later.startswith(earlier) for earlier, later in pairwise(seen))


def test_a_character_is_shown_when_all_its_bytes_are_there() -> None:
    """Of the two bytes of "é" the first alone shows nothing."""
    tokenizer, seen = byte_tokenizer(), []
    streamer = RowStreamer(tokenizer, 1, lambda texts: seen.append(texts[0]))
    streamer.put(torch.tensor([[1, 2]]))
    for token in tokenizer("aé!").input_ids:
        streamer.put(torch.tensor([token]))
    assert seen == ["a", "a", "aé", "aé!"]


@pytest.mark.parametrize("config", [SteeringConfig(r=4, init_weights=False), LoraConfig(init_lora_weights=False)])
def test_side_by_side_each_row_answers_as_it_would_alone(config: SteeringConfig | LoraConfig) -> None:
    """Two rows of one batch, of unequal length: the base's answer and the adapter's."""
    base, tokenizer = answer(speaker(), "abc\n"), byte_tokenizer()
    model = get_peft_model(speaker(), config).eval()
    prompts = [tokenizer(text).input_ids for text in ("abc\n", "abc\nand more\n")]
    both = reply(model, tokenizer, prompts, SETTINGS, lambda texts: None, ["__base__", "default"])
    expected = [base, answer(model, "abc\nand more\n")]
    assert both == expected
    assert base != answer(model, "abc\n")


def test_the_dial_at_zero_lets_the_base_answer() -> None:
    """/strength changes the next answer; without a number it shows the strength."""
    model = steered()
    with_adapter, base = answer(model, "abc\n"), answer(speaker(), "abc\n")
    said = talk(model, ["abc", "/reset", "/strength 0", "abc", "/strength"])
    assert with_adapter != base
    assert with_adapter in said.partition("Forgotten.")[0]
    assert base in said.partition("Forgotten.")[2]
    assert said.rstrip().endswith("strength 0")


def test_side_by_side_shows_both_under_their_names() -> None:
    """The two answers stand in two columns of which the second names its strength."""
    said = talk(steered(strength=0.5), ["abc"], compare=True)
    assert "base" in said
    assert "steered, strength 0.5" in said
    with pytest.raises(ValueError, match="nothing to compare"):
        talk(speaker(), ["abc"], compare=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/strenght 1", "Did you mean '/strength'?"),
        ("/strength loud", "'loud' is not a number"),
        ("/strength nan", "finite"),
        ("/help", "/reset"),
    ],
)
def test_a_command_that_makes_no_sense_is_explained(line: str, message: str) -> None:
    """A misspelt command or a bad number is answered with a sentence, and the conversation goes on."""
    assert message in talk(steered(), [line])


def test_a_strength_without_a_steering_adapter_is_explained() -> None:
    """The base has no dial."""
    assert "no steering adapter" in talk(speaker(), ["/strength"])


def test_a_message_longer_than_the_context_is_refused_and_forgotten() -> None:
    """The numbers are named, and the next message is answered as if it had not been typed."""
    model = speaker()  # reads 128 tokens
    said = talk(model, ["x" * 200, "abc"])
    assert "201 tokens" in said
    assert "at most 128" in said
    assert answer(model, "abc\n") in said


def test_a_message_that_the_template_refuses_is_forgotten() -> None:
    """Its own words are shown, and the next message is answered as if this one had not been typed."""
    refusing = (
        "{% for m in messages %}{% if 'bad' in m['content'] %}{{ raise_exception('Mind your words') }}{% endif %}"
        "{{ m['content'] }}\n{% endfor %}"
    )
    model = speaker()
    said = talk(model, ["bad", "abc"], replace(SETTINGS, form="chat"), refusing)
    refusal = "The conversation cannot be written in the model's chat template: Mind your words.\n"
    assert answer(model, "abc\n") in said.partition(refusal)[2]


def test_an_answer_ends_where_the_context_ends() -> None:
    """A prompt that leaves room for three tokens gets three."""
    model, tokenizer, seen = speaker(), byte_tokenizer(), []
    reply(model, tokenizer, [[5] * 125], SETTINGS, lambda texts: seen.append(texts))
    assert len(seen) == 3


def test_quit_ends_the_session() -> None:
    """What is typed after /quit is not read."""
    assert "strength" not in talk(steered(), ["/quit", "/strength"])


def test_an_answer_ends_behind_the_stop_text() -> None:
    """The stop text is the last that is said."""
    model = speaker()
    full = answer(model, "abc\n")
    stop = full[3]
    prompt = byte_tokenizer()("abc\n").input_ids
    (short,) = reply(model, byte_tokenizer(), [prompt], replace(SETTINGS, stop=stop), lambda texts: None)
    assert short == full[: full.index(stop) + 1]


@pytest.mark.parametrize(
    ("option", "value"),
    [("max_new_tokens", 0), ("temperature", -1.0), ("temperature", float("nan")), ("stop", "")],
)
def test_settings_that_allow_no_answer_are_refused(option: str, value: object) -> None:
    """The error names the option."""
    with pytest.raises(ValueError, match=option):
        ChatSettings(**{option: value})


def test_the_form_follows_the_training_and_the_template() -> None:
    """auto is what the adapter was trained on, and plain where there is no template."""
    assert ChatSettings().for_model(byte_tokenizer(chat=True)).form == "chat"
    assert ChatSettings().for_model(byte_tokenizer(chat=True), "plain").form == "plain"
    assert ChatSettings().for_model(byte_tokenizer()).form == "plain"
    assert ChatSettings().for_model(byte_tokenizer(), longest=10).max_new_tokens == 10
    assert ChatSettings(max_new_tokens=20).for_model(byte_tokenizer(), longest=10).max_new_tokens == 20
    with pytest.raises(ValueError, match="no chat template"):
        ChatSettings(form="chat").for_model(byte_tokenizer())
    with pytest.raises(ValueError, match="system message"):
        ChatSettings(system="x").for_model(byte_tokenizer())
