"""The dozen conversations that every client holds with every kind of backend, and the record of how they went."""

import json
import os
import sys
import traceback

GATEWAY = os.environ["GATEWAY"]
BACKENDS = ["openai", "azure", "anthropic", "bedrock", "bedrock-anthropic"]
# An image of one pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PLACE = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
TOOLS = {"get_weather": "The weather of a city", "get_time": "The local time of a city"}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
SYSTEM = "Always answer in one short sentence."
failures = 0


def model(backend):
    return "on-" + backend


def headers(client):
    return {"x-user-id": "matrix-" + client}


def record(client, backend, conversation, error=None):
    global failures
    failures += error is not None
    print(("FAIL " if error else "ok   ") + f"{client} -> {backend}: {conversation}" + (f": {error}" if error else ""), flush=True)
    with open(os.environ["RESULTS"], "a") as file:
        file.write(json.dumps({"client": client, "backend": backend, "conversation": conversation, "ok": error is None}) + "\n")


def hold(client, conversations):
    """Holds each conversation (name -> function of the model) with each kind of backend."""
    for backend in BACKENDS:
        for name, conversation in conversations.items():
            try:
                conversation(model(backend))
            except Exception as error:  # Whatever goes wrong is what the matrix is for.
                if os.environ.get("VERBOSE"):
                    traceback.print_exc()
                record(client, backend, name, f"{type(error).__name__}: {error}"[:300])
            else:
                record(client, backend, name)
    sys.exit(failures > 0)


def same(actual, expected):
    assert actual == expected, f"{actual!r} instead of {expected!r}"


def contains(text, *parts):
    for part in parts:
        assert part.lower() in (text or "").lower(), f"{part!r} is missing in {text!r}"


def is_person(text):
    person = json.loads(text)
    assert isinstance(person["name"], str) and isinstance(person["age"], int), text


def raises(kind, status, function):
    try:
        function()
    except kind as error:
        same(getattr(error, "status_code", status), status)
        return str(error)
    raise AssertionError(f"no {kind.__name__}")
