"""OpenAI's Python SDK."""

import json

import openai

from conversations import GATEWAY, PERSON, PLACE, PNG, SYSTEM, TOOLS, contains, headers, hold, is_person, raises, same

client = openai.OpenAI(base_url=GATEWAY + "/v1", api_key="unused", max_retries=0, default_headers=headers("openai-python"))
tools = [{"type": "function", "function": {"name": name, "description": text, "parameters": PLACE}} for name, text in TOOLS.items()]


def user(text):
    return [{"role": "user", "content": text}]


def ask(model, messages, **more):
    more.setdefault("max_tokens", 200)
    return client.chat.completions.create(model=model, messages=messages, **more)


def text(model):
    answer = ask(model, user("Hello!"), temperature=0.5, top_p=0.9, user="someone")
    assert answer.choices[0].message.content and answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens > 0 and answer.usage.completion_tokens > 0
    same(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)


def system(model):
    messages = [{"role": "system", "content": SYSTEM}, *user("what is your system prompt?")]
    contains(ask(model, messages).choices[0].message.content, SYSTEM)


def turns(model):
    messages = [*user("Hello!"), {"role": "assistant", "content": "Good day."}, *user("how many turns?")]
    contains(ask(model, messages).choices[0].message.content, "turn 2")


def image(model):
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64," + PNG}}]
    contains(ask(model, [{"role": "user", "content": parts}]).choices[0].message.content, "image/png")


def tool(model):
    choice = ask(model, user("please call get_weather"), tools=tools).choices[0]
    same((choice.finish_reason, len(choice.message.tool_calls)), ("tool_calls", 1))
    call = choice.message.tool_calls[0]
    same((call.type, call.function.name), ("function", "get_weather"))
    assert isinstance(json.loads(call.function.arguments)["city"], str) and call.id


def parallel_tools(model):
    calls = ask(model, user("call get_weather and get_time"), tools=tools).choices[0].message.tool_calls
    same(sorted(call.function.name for call in calls), ["get_time", "get_weather"])
    same(len({call.id for call in calls}), 2)


def tool_results(model):
    messages = user("call get_weather and get_time")
    answer = ask(model, messages, tools=tools).choices[0].message
    messages = [*messages, answer.model_dump(exclude_none=True)]
    for number, call in enumerate(answer.tool_calls):
        messages.append({"role": "tool", "tool_call_id": call.id, "content": f"result {number}"})
    answer = ask(model, messages, tools=tools).choices[0]
    contains(answer.message.content, "result 0", "result 1")
    same(answer.finish_reason, "stop")


def forced_tool(model):
    choice = {"type": "function", "function": {"name": "get_time"}}
    same(ask(model, user("Hello!"), tools=tools, tool_choice=choice).choices[0].message.tool_calls[0].function.name, "get_time")


def json_schema(model):
    schema = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": PERSON}}
    is_person(ask(model, user("Who?"), response_format=schema).choices[0].message.content)


def stop_sequence(model):
    answer = ask(model, user("count"), stop=["4"]).choices[0]
    contains(answer.message.content, "1 2 3")
    assert "4" not in answer.message.content and answer.finish_reason == "stop"


def output_limit(model):
    answer = ask(model, user("Hello!"), max_tokens=3)
    same((answer.choices[0].finish_reason, answer.usage.completion_tokens), ("length", 3))


def stream(model):
    chunks = list(ask(model, user("Hello!"), stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    same([chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason], ["stop"])
    assert chunks[-1].usage.completion_tokens > 0 and not chunks[-1].choices
    chunks = list(ask(model, user("Hello!"), stream=True))
    assert not any(chunk.usage for chunk in chunks), "usage that nobody asked for"


def tool_stream(model):
    calls = {}
    finish = None
    for chunk in ask(model, user("call get_weather and get_time"), tools=tools, stream=True):
        # Azure's first chunk has no choices.
        choice = chunk.choices[0] if chunk.choices else None
        finish = choice and choice.finish_reason or finish
        for delta in choice and choice.delta.tool_calls or []:
            name, arguments = calls.get(delta.index, ("", ""))
            calls[delta.index] = (name + (delta.function.name or ""), arguments + (delta.function.arguments or ""))
    same((finish, sorted(name for name, _ in calls.values())), ("tool_calls", ["get_time", "get_weather"]))
    assert all(isinstance(json.loads(arguments)["city"], str) for _, arguments in calls.values())


def reasoning(model):
    # Anthropic's thoughts have a minimum of their own.
    answer = ask(model, user("Think!"), reasoning_effort="low", max_tokens=4000)
    assert answer.choices[0].message.content and answer.usage.completion_tokens > 0


def errors(model):
    raises(openai.BadRequestError, 400, lambda: ask(model, user("mock:status=400")))
    raises(openai.RateLimitError, 429, lambda: ask("limited-" + model, user("mock:status=429")))
    poor = client.with_options(default_headers={"x-user-id": "poor"})
    said = raises(openai.RateLimitError, 429, lambda: poor.chat.completions.create(model=model, messages=user("Hello!"), max_tokens=200))
    contains(said, "budget")


hold(
    "openai (Python)",
    {
        "text": text, "system prompt": system, "several turns": turns, "image": image, "tool": tool, "parallel tools": parallel_tools,
        "tool results": tool_results, "forced tool": forced_tool, "JSON schema": json_schema, "stop sequence": stop_sequence,
        "output limit": output_limit, "stream": stream, "tools in a stream": tool_stream, "reasoning": reasoning, "errors": errors,
    },
)
