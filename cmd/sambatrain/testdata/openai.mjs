// Asks a server with OpenAI's own client: node openai.mjs BASE_URL. Prints the answers.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const model = (await client.models.list()).data[0].id;
const complete = (body) => client.completions.create({ model, max_tokens: 12, temperature: 0, ...body });
const prompt = "3 green";

// streamed collects the parts of a streamed answer by choice.
async function streamed(body) {
  const texts = [], reasons = [];
  let usage = null, parts = 0;
  for await (const part of await complete({ ...body, stream: true, stream_options: { include_usage: true } })) {
    for (const c of part.choices) {
      texts[c.index] = (texts[c.index] ?? "") + c.text;
      if (c.finish_reason) reasons[c.index] = c.finish_reason;
      parts++;
    }
    usage = part.usage ?? usage;
  }
  return { texts, reasons, usage, parts };
}

// refused is what becomes of a request that can't be answered.
async function refused(body) {
  try {
    await complete(body);
    return null;
  } catch (e) {
    return { kind: e.constructor.name, status: e.status, type: e.type, param: e.param, code: e.code };
  }
}

const whole = await complete({ prompt });
const text = whole.choices[0].text;
console.log(JSON.stringify({
  model, retrieved: (await client.models.retrieve(model)).id, prompt,
  whole,
  streamed: await streamed({ prompt }),
  several: await complete({ prompt: [prompt, "4 green"], n: 2, temperature: 1, seed: 5 }),
  severalStreamed: await streamed({ prompt: [prompt, "4 green"], n: 2, temperature: 1, seed: 5 }),
  ids: await complete({ prompt: [[256, ...Buffer.from(prompt)]] }),
  echo: await complete({ prompt, echo: true, logprobs: 2, max_tokens: 0 }),
  logprobs: await complete({ prompt, logprobs: 2, max_tokens: 3 }),
  stopped: await complete({ prompt, stop: [text.slice(4, 6)] }),
  refused: [
    await refused({ prompt, max_tokens: -1 }),
    await refused({ prompt, model: "davinci-002" }),
    await refused({ prompt, suffix: "x" }),
    await refused({ prompt, max_tokens: 1e6 }),
  ],
}));
