// The official Node SDK, with only baseURL changed.
import assert from "node:assert";
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: process.env.GATEWAY,
  apiKey: "unused",
  maxRetries: 2,
  defaultHeaders: { "x-user-id": "node" },
});
const messages = [{ role: "user", content: "Hello!" }];
const ok = (name) => console.log("ok   node: " + name);

const answer = await client.chat.completions.create({ model: "gpt-4o", messages, max_tokens: 20 });
assert.equal(answer.usage.completion_tokens, 16);
ok("chat");

let pieces = 0;
for await (const chunk of await client.chat.completions.create({ model: "gpt-4o", messages, max_tokens: 20, stream: true })) {
  assert.ok(chunk.choices.length > 0, "usage nobody asked for");
  if (chunk.choices[0].delta.content) pieces += 1;
}
assert.equal(pieces, 16);
ok("stream");

const embeddings = await client.embeddings.create({ model: "text-embedding-3-small", input: ["a", "b"], encoding_format: "float" });
assert.equal(embeddings.data.length, 2);
ok("embeddings");

const models = await client.models.list();
assert.ok(models.data.some((model) => model.id === "gpt-4o"));
ok("models");

const started = Date.now();
await assert.rejects(client.chat.completions.create({ model: "gpt-4o", messages, max_tokens: 5000 }), OpenAI.RateLimitError);
assert.ok(Date.now() - started < 2000, "x-should-retry: false was not honoured");
ok("over budget, not retried");
