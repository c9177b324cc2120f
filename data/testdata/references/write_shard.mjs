// write_shard.mjs OUT < SHARD
//
// Writes a shard with DuckDB, as docs/data.md describes one. SHARD is JSON: {"metadata": {key: text}, "rows":
// [{"document": text, "tokens": [ids], "bytes": number}]}.
import fs from "node:fs";
import { createRequire } from "node:module";

const { DuckDBInstance } = createRequire(process.cwd() + "/")("@duckdb/node-api");
const [out] = process.argv.slice(2);
const { metadata, rows } = JSON.parse(fs.readFileSync(0, "utf8"));
const quote = (text) => `'${String(text).replaceAll("'", "''")}'`;
const db = await (await DuckDBInstance.create()).connect();
await db.run("create table shard (document varchar, tokens integer[], bytes bigint)");
for (const r of rows) {
  await db.run(`insert into shard values (${quote(r.document)}, [${r.tokens}], ${r.bytes})`);
}
const pairs = Object.entries(metadata).map(([key, value]) => `${quote(key)}: ${quote(value)}`);
await db.run(`copy shard to ${quote(out)} (format parquet, codec zstd, row_group_size 2048, kv_metadata {${pairs}})`);
