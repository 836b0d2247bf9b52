"""The fixed public text around an instruction: before it for the generator, before and after it for an annotator.

An instruct model already knows what a user turn looks like. So the generator continues the model's own chat template up
to the open user turn, and private training spends no budget on learning it. The text is public and the same for every
row. The generator of the paper's released code is unconditional, which is the prompt "empty" here.

Instructions are encoded as plain text. A text that spells a control token such as `<|im_end|>` must not become one,
because it could then end a turn or forge one. A template is rendered with a marker as the user's text. So every
template works that prints the user's text once, and the text around the marker is tokenized separately from the
instruction.

Left out: with a template that prints the date in its default system message, "system_user_turn" depends on the day.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from dp_assets.generation.settings import GeneratorPrompt

PLAIN_OPENING = "A request that a person typed to an AI assistant:\n"
"""What stands before an instruction when the tokenizer has no chat template."""

PLAIN_ANSWER_OPENING = "\n\nThe assistant's answer:\n"
"""What stands between an instruction and its answer when the tokenizer has no chat template."""

# Mixed case, so that a template which changes case is detected.
_SYSTEM_MARKER = "System-TEXT-stands-HERE"
_USER_MARKER = "User-TEXT-stands-HERE"


def generator_prompt_ids(tokenizer: PreTrainedTokenizerBase, *, prompt: GeneratorPrompt) -> list[int]:
    """Return the token ids of the public prompt that the generator continues; at least one.

    - "user_turn": the open user turn without a system message.
    - "system_user_turn": the same after the template's default system message, if it has one.
    - "empty": only the first token of a text, as in the paper.

    Raises:
      ValueError: `prompt` is none of the three, the tokenizer has neither a bos nor an eos token, or its chat template
        cannot be rendered or does not print the user's text once.
    """
    if prompt == "empty":
        return [_first_token_id(tokenizer)]
    if prompt not in ("user_turn", "system_user_turn"):
        raise ValueError(f"prompt is {prompt!r}; choose user_turn, system_user_turn or empty")
    if tokenizer.chat_template is None:
        return _plain_opening_ids(tokenizer)
    opening, _ = _around_user_text(tokenizer)
    if prompt == "user_turn":
        opening = _without_default_system_message(tokenizer, opening)
    return _template_ids(tokenizer, opening) or [_first_token_id(tokenizer)]


def answer_prompt_ids(tokenizer: PreTrainedTokenizerBase, instruction: str) -> list[int]:
    """Return the token ids of a chat whose only user turn is `instruction`, up to the open assistant turn."""
    if tokenizer.chat_template is None:
        before = _plain_opening_ids(tokenizer)
        after = _template_ids(tokenizer, PLAIN_ANSWER_OPENING)
    else:
        opening, closing = _around_user_text(tokenizer)
        before, after = _template_ids(tokenizer, opening), _template_ids(tokenizer, closing)
    return before + _plain_text_ids(tokenizer, instruction) + after


def encode_instruction(tokenizer: PreTrainedTokenizerBase, text: str, *, max_tokens: int) -> list[int]:
    """Return the token ids of `text`, cut to `max_tokens - 1`, followed by the end token.

    The paper's code also adds the end token to cut texts. Without it the generator would learn not to stop.

    Raises:
      ValueError: `max_tokens` leaves no room for text.
    """
    if max_tokens < 2:
        raise ValueError(f"max_tokens is {max_tokens}; at least 2 are needed, one of them for the end token")
    return [*_plain_text_ids(tokenizer, text)[: max_tokens - 1], end_of_instruction_id(tokenizer)]


def end_of_instruction_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that ends an instruction: the tokenizer's eos, which ends a turn in instruct models.

    Raises:
      ValueError: the tokenizer has no eos token.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no eos token; choose a model whose tokenizer names one")
    return int(tokenizer.eos_token_id)


def _first_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the bos token, or eos for models that start texts with their end token."""
    return end_of_instruction_id(tokenizer) if tokenizer.bos_token_id is None else int(tokenizer.bos_token_id)


def _plain_opening_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return [_first_token_id(tokenizer), *_template_ids(tokenizer, PLAIN_OPENING)]


def _template_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the ids of template text, in which control tokens are recognized."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _plain_text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the ids of a person's text, in which control tokens are encoded as ordinary characters."""
    # verbose=False: a tokenizer with a length limit would print the length of a private text.
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"])


def _rendered(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]], *, add_generation_prompt: bool = False
) -> str:
    """Return the messages as the chat template prints them.

    Raises:
      ValueError: the template does not parse, refuses the messages, or expects content of another type.
    """
    try:
        text: str = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except Exception as error:  # a template is a program: it may fail in any way
        raise ValueError(
            f"the tokenizer's chat template cannot be rendered ({type(error).__name__}: {error}); choose another model,"
            " or correct the template of a local copy"
        ) from None
    return text


def _around_user_text(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """Return the text that the template prints before and after the only user turn of a chat with an open answer.

    Raises:
      ValueError: the template cannot be rendered, or does not print the text exactly once.
    """
    messages = [{"role": "user", "content": _USER_MARKER}]
    rendered = _rendered(tokenizer, messages, add_generation_prompt=True)
    if rendered.count(_USER_MARKER) != 1:
        raise ValueError(
            "the tokenizer's chat template does not print the user's text as it is and once, as one that takes content"
            " as a list of parts does not; choose another model, or correct the template of a local copy"
        )
    before, _, after = rendered.partition(_USER_MARKER)
    return before, after


def _without_default_system_message(tokenizer: PreTrainedTokenizerBase, opening: str) -> str:
    """Return `opening` without the default system message that some templates insert into a chat without one.

    With an explicit system message the template prints head + message + tail. If the opening also has the form head +
    something + tail, it holds a default message. The open user turn is then the tail without its beginning, which
    closes the system turn.
    """
    system, user = ({"role": "system", "content": _SYSTEM_MARKER}, {"role": "user", "content": _USER_MARKER})
    try:
        with_system = _rendered(tokenizer, [system, user])
        only_system = _rendered(tokenizer, [system])
    except ValueError:
        return opening  # A template that refuses system messages does not insert one.
    head, _, rest = with_system.partition(_SYSTEM_MARKER)
    tail = rest.partition(_USER_MARKER)[0]
    if not (opening.startswith(head) and opening.endswith(tail)):
        return opening
    user_turn: str = tail.removeprefix(only_system.partition(_SYSTEM_MARKER)[2])
    bos: str = tokenizer.bos_token or ""
    return bos + user_turn if opening.startswith(bos) and not user_turn.startswith(bos) else user_turn
