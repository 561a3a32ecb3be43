// OpenAI's and Anthropic's Node SDKs.
import assert from "node:assert";
import { appendFileSync } from "node:fs";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const gateway = process.env.GATEWAY;
const backends = ["openai", "azure", "anthropic", "bedrock", "bedrock-anthropic"];
const common = { apiKey: "unused", maxRetries: 0, defaultHeaders: { "x-user-id": "matrix-node" } };
const openai = new OpenAI({ baseURL: gateway + "/v1", ...common });
const anthropic = new Anthropic({ baseURL: gateway, ...common });
const place = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
const names = ["get_time", "get_weather"];
const user = (content) => [{ role: "user", content }];
const max_tokens = 200;
const system = "Always answer in one short sentence.";

const chatTools = names.map((name) => ({ type: "function", function: { name, parameters: place } }));
const chat = (model, messages, more) => openai.chat.completions.create({ model, messages, max_tokens, ...more });
const chats = {
  text: async (model) => {
    const answer = await chat(model, user("Hello!"));
    assert.ok(answer.choices[0].message.content && answer.usage.completion_tokens > 0);
  },
  "system prompt": async (model) => {
    const answer = await chat(model, [{ role: "system", content: system }, ...user("what is your system prompt?")]);
    assert.ok(answer.choices[0].message.content.includes(system));
  },
  "tool results": async (model) => {
    const asked = user("call get_weather and get_time");
    const { message } = (await chat(model, asked, { tools: chatTools })).choices[0];
    assert.deepEqual(message.tool_calls.map((call) => call.function.name).sort(), names);
    const results = message.tool_calls.map((call, index) => ({ role: "tool", tool_call_id: call.id, content: `result ${index}` }));
    const answer = await chat(model, [...asked, message, ...results], { tools: chatTools });
    assert.ok(answer.choices[0].message.content.includes("result 1"));
  },
  stream: async (model) => {
    let text = "";
    const options = { stream: true, stream_options: { include_usage: true } };
    let usage;
    for await (const chunk of await chat(model, user("Hello!"), options)) {
      text += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.ok(text && usage.completion_tokens > 0);
  },
  "tools in a stream": async (model) => {
    const stream = openai.chat.completions.stream({ model, messages: user("call get_weather and get_time"), max_tokens, tools: chatTools });
    const answer = await stream.finalChatCompletion();
    assert.deepEqual(answer.choices[0].message.tool_calls.map((call) => call.function.name).sort(), names);
  },
  errors: async (model) => {
    await assert.rejects(chat(model, user("mock:status=400")), OpenAI.BadRequestError);
    await assert.rejects(chat("limited-" + model, user("mock:status=429")), OpenAI.RateLimitError);
  },
};

const messageTools = names.map((name) => ({ name, input_schema: place }));
const message = (model, messages, more) => anthropic.messages.create({ model, messages, max_tokens, ...more });
const words = (answer) => answer.content.map((block) => block.text ?? "").join("");
const uses = (answer) => answer.content.filter((block) => block.type === "tool_use");
const messages = {
  text: async (model) => {
    const answer = await message(model, user("Hello!"));
    assert.ok(words(answer) && answer.usage.output_tokens > 0);
  },
  "system prompt": async (model) => {
    assert.ok(words(await message(model, user("what is your system prompt?"), { system })).includes(system));
  },
  "tool results": async (model) => {
    const asked = user("call get_weather and get_time");
    const first = await message(model, asked, { tools: messageTools });
    assert.deepEqual(uses(first).map((use) => use.name).sort(), names);
    const content = uses(first).map((use, index) => ({ type: "tool_result", tool_use_id: use.id, content: `result ${index}` }));
    const turns = [...asked, { role: "assistant", content: first.content }, { role: "user", content }];
    assert.ok(words(await message(model, turns, { tools: messageTools })).includes("result 1"));
  },
  stream: async (model) => {
    const stream = anthropic.messages.stream({ model, messages: user("Hello!"), max_tokens });
    const answer = await stream.finalMessage();
    assert.ok(words(answer) && answer.usage.output_tokens > 0 && answer.stop_reason === "end_turn");
  },
  "tools in a stream": async (model) => {
    const stream = anthropic.messages.stream({ model, messages: user("call get_weather and get_time"), max_tokens, tools: messageTools });
    const answer = await stream.finalMessage();
    assert.deepEqual(uses(answer).map((use) => use.name).sort(), names);
    assert.ok(uses(answer).every((use) => typeof use.input.city === "string"));
  },
  errors: async (model) => {
    await assert.rejects(message(model, user("mock:status=400")), Anthropic.BadRequestError);
    await assert.rejects(message("limited-" + model, user("mock:status=429")), Anthropic.RateLimitError);
  },
};

let failures = 0;
for (const [client, conversations] of [["openai (Node)", chats], ["anthropic (Node)", messages]]) {
  for (const backend of backends) {
    for (const [conversation, hold] of Object.entries(conversations)) {
      const error = await hold("on-" + backend).then(() => null, (error) => error);
      failures += error ? 1 : 0;
      console.log(`${error ? "FAIL" : "ok  "} ${client} -> ${backend}: ${conversation}${error ? ": " + error.message : ""}`);
      appendFileSync(process.env.RESULTS, JSON.stringify({ client, backend, conversation, ok: !error }) + "\n");
    }
  }
}
process.exit(failures > 0 ? 1 : 0);
