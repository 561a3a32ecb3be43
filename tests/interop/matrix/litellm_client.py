"""LiteLLM's library, through the OpenAI and the Anthropic side of the gateway."""

import json

import litellm

from conversations import GATEWAY, PLACE, SYSTEM, TOOLS, contains, headers, hold, same

litellm.telemetry = False
tools = [{"type": "function", "function": {"name": name, "description": text, "parameters": PLACE}} for name, text in TOOLS.items()]


def ask(model, messages, **more):
    common = {"messages": messages, "api_key": "unused", "max_tokens": 200, "num_retries": 0, "extra_headers": headers("litellm"), **more}
    yield litellm.completion(model="openai/" + model, api_base=GATEWAY + "/v1", **common)
    yield litellm.completion(model="anthropic/" + model, api_base=GATEWAY, **common)


def user(text):
    return [{"role": "user", "content": text}]


def text(model):
    for answer in ask(model, user("Hello!")):
        assert answer.choices[0].message.content and answer.usage.completion_tokens > 0


def system(model):
    for answer in ask(model, [{"role": "system", "content": SYSTEM}, *user("what is your system prompt?")]):
        contains(answer.choices[0].message.content, SYSTEM)


def parallel_tools(model):
    for answer in ask(model, user("call get_weather and get_time"), tools=tools):
        calls = answer.choices[0].message.tool_calls
        same(sorted(call.function.name for call in calls), ["get_time", "get_weather"])
        assert all(isinstance(json.loads(call.function.arguments)["city"], str) for call in calls)


def stream(model):
    for chunks in ask(model, user("Hello!"), stream=True):
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


hold("LiteLLM", {"text": text, "system prompt": system, "parallel tools": parallel_tools, "stream": stream})
