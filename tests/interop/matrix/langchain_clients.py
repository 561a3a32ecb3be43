"""LangChain, through the OpenAI and the Anthropic side of the gateway."""

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool as define
from langchain_openai import ChatOpenAI

from conversations import GATEWAY, PNG, SYSTEM, contains, headers, hold, same


@define
def get_weather(city: str) -> str:
    """The weather of a city"""
    return "result 0"


@define
def get_time(city: str) -> str:
    """The local time of a city"""
    return "result 1"


def chat(model):
    # One model for each side, in turn: both have to work.
    openai = ChatOpenAI(model=model, base_url=GATEWAY + "/v1", api_key="unused", max_retries=0, max_tokens=200, stream_usage=True, default_headers=headers("langchain"))
    anthropic = ChatAnthropic(model=model, base_url=GATEWAY, api_key="unused", max_retries=0, max_tokens=200, default_headers=headers("langchain"))
    return [openai, anthropic]


def words(message):
    content = message.content
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content if isinstance(part, dict))


def text(model):
    for side in chat(model):
        answer = side.invoke("Hello!")
        assert words(answer) and answer.usage_metadata["output_tokens"] > 0


def system(model):
    for side in chat(model):
        contains(words(side.invoke([SystemMessage(SYSTEM), HumanMessage("what is your system prompt?")])), SYSTEM)


def turns(model):
    for side in chat(model):
        contains(words(side.invoke([HumanMessage("Hello!"), AIMessage("Good day."), HumanMessage("how many turns?")])), "turn 2")


def image(model):
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64," + PNG}}]
    for side in chat(model):
        contains(words(side.invoke([HumanMessage(parts)])), "image/png")


def tool_results(model):
    tools = {"get_weather": get_weather, "get_time": get_time}
    for side in chat(model):
        bound = side.bind_tools(list(tools.values()))
        messages = [HumanMessage("call get_weather and get_time")]
        answer = bound.invoke(messages)
        same(sorted(call["name"] for call in answer.tool_calls), ["get_time", "get_weather"])
        messages.append(answer)
        for call in answer.tool_calls:
            messages.append(ToolMessage(tools[call["name"]].invoke(call["args"]), tool_call_id=call["id"]))
        contains(words(bound.invoke(messages)), "result 0", "result 1")


def stream(model):
    for side in chat(model):
        chunks = list(side.stream("Hello!"))
        assert "".join(words(chunk) for chunk in chunks)
        assert sum((chunk.usage_metadata or {}).get("output_tokens", 0) for chunk in chunks) > 0


hold("LangChain", {"text": text, "system prompt": system, "several turns": turns, "image": image, "tool results": tool_results, "stream": stream})
