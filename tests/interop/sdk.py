"""The official Python SDK, with only base_url changed."""

import os

import openai

client = openai.OpenAI(base_url=os.environ["GATEWAY"], api_key="unused", max_retries=0, default_headers={"x-user-id": "python"})
hello = [{"role": "user", "content": "Hello!"}]


def check(name, condition):
    print(("ok   " if condition else "FAIL ") + "python: " + name, flush=True)
    assert condition, name


answer = client.chat.completions.create(model="gpt-4o", messages=hello, max_tokens=20)
check("chat", answer.choices[0].message.content.startswith("ok") and answer.usage.completion_tokens == 16)

raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=hello, max_tokens=20)
check("headers", raw.headers["x-ai-provider"] == "mock" and int(raw.headers["x-ai-gateway-tokens-used"]) > 16)

chunks = list(client.chat.completions.create(model="gpt-4o", messages=hello, max_tokens=20, stream=True))
check("stream hides the usage nobody asked for", all(chunk.choices for chunk in chunks))
check("stream", sum(len(chunk.choices[0].delta.content or "") > 0 for chunk in chunks) == 16)

options = {"include_usage": True}
chunks = list(client.chat.completions.create(model="gpt-4o", messages=hello, max_tokens=20, stream=True, stream_options=options))
check("stream shows the usage that was asked for", chunks[-1].usage.completion_tokens == 16)

check("completion", client.completions.create(model="gpt-4o", prompt="Hello", max_tokens=5).usage.completion_tokens == 5)
embeddings = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"], encoding_format="float")
check("embeddings", len(embeddings.data) == 2)
check("models", any(model.id == "gpt-4o" for model in client.models.list()))

try:
    client.chat.completions.create(model="gpt-4o", messages=hello, max_tokens=5000)
    check("over budget", False)
except openai.RateLimitError as error:
    check("over budget", "budget user" in error.message and error.response.headers["x-should-retry"] == "false")
