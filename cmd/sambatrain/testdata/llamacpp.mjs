// Continues tokens greedily with llama.cpp: node llamacpp.mjs MODELS COUNT TEXT, where
// MODELS is [{"path", "prompt": [token, ...]}, ...]. Prints, for each model, the tokens of
// TEXT and of the continuation, and what @huggingface/gguf reads of the file.
import { getLlama } from "node-llama-cpp";
import { gguf } from "@huggingface/gguf";

const [models, count, text] = process.argv.slice(2);
const llama = await getLlama({ gpu: false, build: "never", skipDownload: true, logLevel: "error", maxThreads: 1 });
const results = [];
for (const { path, prompt } of JSON.parse(models)) {
  const model = await llama.loadModel({ modelPath: path, useMmap: false });
  const context = await model.createContext({ contextSize: 128, threads: 1 });
  const sequence = context.getSequence();
  const continued = [];
  let input = [...prompt];
  while (continued.length < Number(count)) {
    const last = input.pop();
    const options = { generateNext: { token: true, options: { temperature: 0 } } };
    const evaluated = await sequence.controlledEvaluate([...input, [last, options]]);
    continued.push(evaluated.at(-1).next.token);
    input = [continued.at(-1)];
  }
  const tokens = model.tokenize(text, false);
  const { metadata, tensorInfos } = await gguf(path, { allowLocalFile: true });
  results.push({
    continued, tokens, text: model.detokenize(tokens),
    architecture: metadata["general.architecture"],
    types: Object.fromEntries(tensorInfos.map((t) => [t.name, t.dtype])),
  });
  await context.dispose();
  await model.dispose();
}
console.log(JSON.stringify(results));
process.exit(0);
