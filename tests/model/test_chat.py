import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from arcmtp.errors import ArcmtpError
from arcmtp.gguf import GGUF
from arcmtp.model.chat import ChatTemplate

ROOT = Path(__file__).parents[2]
TINY_MODEL = ROOT / "arcmtp/data/tiny-qwen36moe-q4_0.gguf"
GOLDEN = json.loads((ROOT / "arcmtp/data/golden.json").read_text())
USER = {"role": "user", "content": "hi"}

# The rules of Qwen3.6's chat format: tools, tool calls and results, earlier reasoning dropped or preserved.
QWEN36_RULES = r"""
{%- macro text_of(content) -%}
    {%- if content is string -%}
        {{- content -}}
    {%- elif content -%}
        {%- for part in content -%}
            {{- '<|vision_start|><|image_pad|><|vision_end|>' if part.type == 'image' else part.text -}}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- set ns = namespace(last_query=-1) %}
{%- for message in messages %}
    {%- set content = text_of(message.content) | trim %}
    {%- set is_response = content.startswith('<tool_response>') and content.endswith('</tool_response>') %}
    {%- if message.role == 'user' and not is_response %}
        {%- set ns.last_query = loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- if ns.last_query < 0 %}
    {{- raise_exception('No user query found in messages.') }}
{%- endif %}
{%- set system = text_of(messages[0].content) | trim if messages[0].role == 'system' else '' %}
{%- if tools %}
    {{- '<|im_start|>system\n# Tools\n\n<tools>' }}
    {%- for tool in tools %}
        {{- '\n' + (tool | tojson) }}
    {%- endfor %}
    {{- '\n</tools>' + ('\n\n' + system if system else '') + '<|im_end|>\n' }}
{%- elif system %}
    {{- '<|im_start|>system\n' + system + '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- set content = text_of(message.content) | trim %}
    {%- if message.role == 'system' %}
        {%- if not loop.first %}
            {{- raise_exception('System message must be at the beginning.') }}
        {%- endif %}
        {%- continue %}
    {%- elif message.role == 'user' %}
        {{- '<|im_start|>user\n' + content + '<|im_end|>\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].split('<think>')[-1] %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\n' }}
        {%- if (preserve_thinking is defined and preserve_thinking) or loop.index0 > ns.last_query %}
            {{- '<think>\n' + reasoning | trim + '\n</think>\n\n' }}
        {%- endif %}
        {{- content }}
        {%- for call in message.tool_calls or [] %}
            {{- ('\n\n' if loop.first and content else '' if loop.first else '\n') }}
            {{- '<tool_call>\n<function=' + call.function.name + '>\n' }}
            {%- for key, value in call.function.arguments.items() %}
                {{- '<parameter=' + key + '>\n' + (value if value is string else value | tojson) }}
                {{- '\n</parameter>\n' }}
            {%- endfor %}
            {{- '</function>\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.previtem.role != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' + content + '\n</tool_response>' }}
        {%- if loop.last or loop.nextitem.role != 'tool' %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n<think>\n' + ('' if enable_thinking else '\n</think>\n\n') }}
{%- endif %}
"""

TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "Wetter für <Ort> & 'Zeit'", "parameters": {"b": True, "a": None}},
}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Zürich", "days": 2, "rain": True}}}
CALL_TEXT = (
    "<tool_call>\n<function=weather>\n<parameter=city>\nZürich\n</parameter>\n"
    "<parameter=days>\n2\n</parameter>\n<parameter=rain>\ntrue\n</parameter>\n</function>\n</tool_call>"
)


@pytest.fixture(scope="module")
def qwen() -> ChatTemplate:
    return ChatTemplate(QWEN36_RULES)


def expression(text: str, **variables: Any) -> str:
    return ChatTemplate(text).render([USER], **variables)


@pytest.mark.parametrize("prompt", [prompt for prompt in GOLDEN["prompts"] if prompt["kind"] == "chat"])
def test_golden_chats_render_to_the_text_of_llama_cpp(prompt: dict[str, Any]) -> None:
    template = ChatTemplate.from_metadata(GGUF(TINY_MODEL).metadata)
    assert template.render(prompt["messages"], enable_thinking=prompt["thinking"]) == prompt["text"]


def test_content_is_stripped_and_no_system_prompt_is_added(qwen: ChatTemplate) -> None:
    rendered = qwen.render([{"role": "user", "content": "  hi\n"}])
    assert rendered == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n"


def test_thinking_off_closes_the_think_block(qwen: ChatTemplate) -> None:
    assert qwen.render([USER], enable_thinking=False).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_without_generation_prompt_the_text_ends_with_the_last_turn(qwen: ChatTemplate) -> None:
    assert qwen.render([USER], add_generation_prompt=False) == "<|im_start|>user\nhi<|im_end|>\n"


def test_text_and_image_parts_are_joined(qwen: ChatTemplate) -> None:
    parts = [{"type": "text", "text": "see "}, {"type": "image"}, {"type": "text", "text": "?"}]
    rendered = qwen.render([{"role": "user", "content": parts}])
    assert rendered.startswith("<|im_start|>user\nsee <|vision_start|><|image_pad|><|vision_end|>?<|im_end|>\n")


@pytest.mark.parametrize(("preserve", "kept"), [(False, ""), (True, "<think>\nwhy\n</think>\n\n")])
def test_earlier_reasoning_is_kept_only_when_asked(qwen: ChatTemplate, preserve: bool, kept: str) -> None:
    messages = [USER, {"role": "assistant", "content": "<think>\nwhy\n</think>\n\nyes"}, USER]
    assert f"<|im_start|>assistant\n{kept}yes<|im_end|>" in qwen.render(messages, preserve_thinking=preserve)


def test_tools_are_listed_as_json_in_key_order_without_escapes(qwen: ChatTemplate) -> None:
    rendered = qwen.render([{"role": "system", "content": "Be brief."}, USER], tools=[TOOL])
    tool = (
        '{"type": "function", "function": {"name": "weather", "description": "Wetter für <Ort> & \'Zeit\'", '
        '"parameters": {"b": true, "a": null}}}'
    )
    assert rendered.startswith(f"<|im_start|>system\n# Tools\n\n<tools>\n{tool}\n</tools>\n\nBe brief.<|im_end|>\n")


def test_tool_calls_and_results_render_as_one_exchange(qwen: ChatTemplate) -> None:
    messages: list[dict[str, Any]] = [
        USER,
        {"role": "assistant", "reasoning_content": "look", "content": "Checking.", "tool_calls": [CALL, CALL]},
        {"role": "tool", "content": "sun"},
        {"role": "tool", "content": "rain"},
    ]
    assert qwen.render(messages) == (
        "<|im_start|>user\nhi<|im_end|>\n"
        f"<|im_start|>assistant\n<think>\nlook\n</think>\n\nChecking.\n\n{CALL_TEXT}\n{CALL_TEXT}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\nsun\n</tool_response>\n<tool_response>\nrain\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n<think>\n"
    )


def test_content_may_be_missing_beside_tool_calls(qwen: ChatTemplate) -> None:
    rendered = qwen.render([USER, {"role": "assistant", "tool_calls": [CALL]}])
    assert f"</think>\n\n{CALL_TEXT}<|im_end|>" in rendered


def test_what_the_template_refuses_is_reported_in_its_own_words(qwen: ChatTemplate) -> None:
    with pytest.raises(ArcmtpError, match=r"^chat template: System message must be at the beginning\.$"):
        qwen.render([USER, {"role": "system", "content": "late"}])
    with pytest.raises(ArcmtpError, match="No user query found in messages"):
        qwen.render([{"role": "system", "content": "alone"}])


def test_block_tags_leave_no_blank_lines() -> None:
    assert expression("a\n  {% if true %}\nb\n  {% endif %}\nc") == "a\nb\nc"


def test_loop_controls_are_available() -> None:
    assert expression("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "01"


def test_json_can_be_indented() -> None:
    assert expression("{{ value | tojson(indent=2) }}", value={"b": 1, "a": "é"}) == '{\n  "b": 1,\n  "a": "é"\n}'


def test_strftime_now_formats_the_current_time() -> None:
    assert expression("{{ strftime_now('%Y') }}") in {str(datetime.now().year), str(datetime.now().year - 1)}


def test_templates_see_the_special_tokens_of_the_file() -> None:
    metadata = {
        "tokenizer.chat_template": "{{ bos_token }}|{{ eos_token }}",
        "tokenizer.ggml.tokens": ["a", "<eos>"],
        "tokenizer.ggml.eos_token_id": 1,
    }
    assert ChatTemplate.from_metadata(metadata).render([USER]) == "|<eos>"


@pytest.mark.parametrize("metadata", [{}, {"tokenizer.chat_template": ""}])
def test_a_file_without_a_template_is_named(metadata: dict[str, Any]) -> None:
    with pytest.raises(ArcmtpError, match="the file has no chat template"):
        ChatTemplate.from_metadata(metadata)


@pytest.mark.parametrize(
    "escape",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ raise_exception.__globals__.json }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ '{0.__class__.__mro__}'.format(1) }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{% for i in range(1000000000) %}{% endfor %}",
    ],
)
def test_a_template_cannot_leave_the_sandbox(escape: str) -> None:
    with pytest.raises(ArcmtpError, match=r"^chat template: ") as caught:
        expression(escape)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x\n{% if %}", "chat template, line 2: "),
        ("{{ x | nosuchfilter }}", "chat template, line 1: No filter named 'nosuchfilter'"),
        ("{% for i in [1] %}" * 30 + "{% endfor %}" * 30, "chat template: too many statically nested blocks"),
        ("{{ " + "(" * 9999 + "1" + ")" * 9999 + " }}", "chat template: maximum recursion depth"),
    ],
)
def test_a_template_that_does_not_compile_is_reported_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ArcmtpError) as caught:
        ChatTemplate(text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{{ 1 / 0 }}", "{{ nothing.at.all }}", "{{ [] + 1 }}", "{{ undefined_thing() }}"])
def test_failures_while_rendering_are_reported_in_one_line(text: str) -> None:
    with pytest.raises(ArcmtpError, match=r"^chat template: [^\n]+$"):
        expression(text)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hi", "messages: expected a non-empty list"),
        (None, "messages: expected a non-empty list"),
        ([], "messages: expected a non-empty list"),
        (["hi"], r"messages\[0\]: expected an object with role and content"),
        ([USER, {"content": "x"}], r"messages\[1\]\.role: expected a string"),
        ([{"role": 1, "content": "x"}], r"messages\[0\]\.role: expected a string"),
        ([{"role": "user"}], r"messages\[0\]\.content is missing"),
        ([{"role": "user", "content": 5}], r"messages\[0\]\.content: expected a string, null or a list of parts"),
    ],
)
def test_malformed_messages_are_named(qwen: ChatTemplate, messages: Any, message: str) -> None:
    with pytest.raises(ArcmtpError, match=message):
        qwen.render(messages)
