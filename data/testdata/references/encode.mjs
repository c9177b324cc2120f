// encode.mjs LIBRARY TOKENIZER_JSON < DOCUMENTS > IDS
//
// Encodes documents with another implementation, without tokens added around them. A document is its length in
// bytes (uint32) and its UTF-8; ids are their number and the ids (uint32). All are little-endian.
import fs from "node:fs";
import { createRequire } from "node:module";

const [library, path] = process.argv.slice(2);
const require = createRequire(process.cwd() + "/");

async function encoder() {
  const json = JSON.parse(fs.readFileSync(path, "utf8"));
  json.post_processor = null;
  switch (library) {
    case "@anush008/tokenizers": {
      const t = require(library).Tokenizer.fromString(JSON.stringify(json));
      return async (text) => (await t.encode(text, null, { addSpecialTokens: false })).getIds();
    }
    case "@huggingface/tokenizers": {
      const t = new (require(library).Tokenizer)(json, {});
      return async (text) => t.encode(text, { add_special_tokens: false }).ids;
    }
  }
  throw new Error(`unknown library ${library}`);
}

const encode = await encoder();
const input = fs.readFileSync(0);
for (let at = 0; at < input.length; ) {
  const size = input.readUInt32LE(at);
  const text = input.toString("utf8", at + 4, at + 4 + size);
  at += 4 + size;
  const ids = await encode(text);
  const out = Buffer.alloc(4 * (ids.length + 1));
  out.writeUInt32LE(ids.length, 0);
  ids.forEach((id, i) => out.writeUInt32LE(id, 4 * (i + 1)));
  fs.writeSync(1, out);
}
