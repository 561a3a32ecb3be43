"""Anthropic's Python SDK."""

import anthropic

from conversations import GATEWAY, PERSON, PLACE, PNG, SYSTEM, TOOLS, contains, headers, hold, is_person, raises, same

client = anthropic.Anthropic(base_url=GATEWAY, api_key="unused", max_retries=0, default_headers=headers("anthropic-python"))
tools = [{"name": name, "description": text, "input_schema": PLACE} for name, text in TOOLS.items()]


def user(text):
    return [{"role": "user", "content": text}]


def ask(model, messages, **more):
    more.setdefault("max_tokens", 200)
    return client.messages.create(model=model, messages=messages, **more)


def words(answer):
    return "".join(block.text for block in answer.content if block.type == "text")


def uses(answer):
    return [block for block in answer.content if block.type == "tool_use"]


def text(model):
    answer = ask(model, user("Hello!"), metadata={"user_id": "someone"}, extra_body={"temperature": 0.5})
    assert words(answer) and answer.stop_reason == "end_turn" and answer.type == "message" and answer.role == "assistant"
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0


def system(model):
    contains(words(ask(model, user("what is your system prompt?"), system=SYSTEM)), SYSTEM)


def turns(model):
    messages = [*user("Hello!"), {"role": "assistant", "content": "Good day."}, *user("how many turns?")]
    contains(words(ask(model, messages)), "turn 2")


def image(model):
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": "What is this?"}]
    contains(words(ask(model, [{"role": "user", "content": parts}])), "image/png")


def tool(model):
    answer = ask(model, user("please call get_weather"), tools=tools)
    same((answer.stop_reason, [use.name for use in uses(answer)]), ("tool_use", ["get_weather"]))
    assert isinstance(uses(answer)[0].input["city"], str) and uses(answer)[0].id


def parallel_tools(model):
    answer = ask(model, user("call get_weather and get_time"), tools=tools)
    same(sorted(use.name for use in uses(answer)), ["get_time", "get_weather"])


def tool_results(model):
    messages = user("call get_weather and get_time")
    answer = ask(model, messages, tools=tools)
    results = [{"type": "tool_result", "tool_use_id": use.id, "content": f"result {number}"} for number, use in enumerate(uses(answer))]
    messages = [*messages, {"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    answer = ask(model, messages, tools=tools)
    contains(words(answer), "result 0", "result 1")
    same(answer.stop_reason, "end_turn")


def forced_tool(model):
    answer = ask(model, user("Hello!"), tools=tools, tool_choice={"type": "tool", "name": "get_time"})
    same([use.name for use in uses(answer)], ["get_time"])


def json_schema(model):
    format = {"format": {"type": "json_schema", "schema": PERSON}}
    is_person(words(ask(model, user("Who?"), output_config=format)))


def stop_sequence(model):
    answer = ask(model, user("count"), stop_sequences=["4"])
    contains(words(answer), "1 2 3")
    # OpenAI does not say what made it stop.
    assert "4" not in words(answer) and answer.stop_reason in ("stop_sequence", "end_turn")


def output_limit(model):
    answer = ask(model, user("Hello!"), max_tokens=3)
    same((answer.stop_reason, answer.usage.output_tokens), ("max_tokens", 3))


def stream(model):
    with client.messages.stream(model=model, messages=user("Hello!"), max_tokens=200) as events:
        said = "".join(events.text_stream)
        answer = events.get_final_message()
    assert said and said == words(answer) and answer.stop_reason == "end_turn"
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0


def tool_stream(model):
    with client.messages.stream(model=model, messages=user("call get_weather and get_time"), tools=tools, max_tokens=200) as events:
        answer = events.get_final_message()
    same((answer.stop_reason, sorted(use.name for use in uses(answer))), ("tool_use", ["get_time", "get_weather"]))
    assert all(isinstance(use.input["city"], str) for use in uses(answer))


def reasoning(model):
    answer = ask(model, user("Think!"), thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=4000)
    assert words(answer) and answer.usage.output_tokens > 0
    if "anthropic" in model or "bedrock" in model:
        same(answer.content[0].type, "thinking")
        assert answer.content[0].signature
        messages = [*user("Think!"), {"role": "assistant", "content": answer.content}, *user("Hello!")]
        assert words(ask(model, messages, thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=4000))


def count_tokens(model):
    assert client.messages.count_tokens(model=model, messages=user("Hello!")).input_tokens > 0


def errors(model):
    raises(anthropic.BadRequestError, 400, lambda: ask(model, user("mock:status=400")))
    raises(anthropic.RateLimitError, 429, lambda: ask("limited-" + model, user("mock:status=429")))
    poor = client.with_options(default_headers={"x-user-id": "poor"})
    said = raises(anthropic.RateLimitError, 429, lambda: poor.messages.create(model=model, messages=user("Hello!"), max_tokens=200))
    contains(said, "budget")


hold(
    "anthropic (Python)",
    {
        "text": text, "system prompt": system, "several turns": turns, "image": image, "tool": tool, "parallel tools": parallel_tools,
        "tool results": tool_results, "forced tool": forced_tool, "JSON schema": json_schema, "stop sequence": stop_sequence,
        "output limit": output_limit, "stream": stream, "tools in a stream": tool_stream, "reasoning": reasoning, "count tokens": count_tokens,
        "errors": errors,
    },
)
