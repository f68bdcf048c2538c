// One call of the OpenAI client, reported in lines of JSON. See tests/clients/openai.rs.

const OpenAI = require("openai");

let attempts = 0;
const report = (what) => console.log(JSON.stringify(what));

const client = new OpenAI.OpenAI({
  baseURL: process.env.BASE_URL,
  apiKey: process.env.KEY,
  fetch: (...request) => {
    attempts += 1;
    return fetch(...request);
  },
});
const messages = [{ role: "user", content: "你好" }];
const model = "deepseek-chat";

const chunks = async (options) => {
  const stream = await client.chat.completions.create({ model, messages, stream: true, ...options });
  for await (const chunk of stream) {
    report({ choices: chunk.choices.length, tokens: chunk.usage?.total_tokens ?? null });
  }
};

const calls = {
  async chat() {
    const response = await client.chat.completions.create({ model, messages });
    report({ content: response.choices[0].message.content, tokens: response.usage.total_tokens });
  },
  async stream() {
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    for await (const chunk of stream) {
      report({ content: chunk.choices[0]?.delta.content ?? null });
    }
  },
  chunks: () => chunks({}),
  chunks_with_usage: () => chunks({ stream_options: { include_usage: true } }),
  async models() {
    const models = [];
    for await (const listed of client.models.list()) models.push(listed.id);
    report({ models });
  },
};

const started = performance.now();
calls[process.argv[2]]().then(
  () => report({ done: true }),
  (error) =>
    report({
      error: error.constructor.name,
      code: error.code ?? null,
      attempts,
      seconds: (performance.now() - started) / 1000,
    }),
);
