// duckdb.mjs SHARD...
//
// Prints, as JSON, what DuckDB finds in Parquet shards.
import { createRequire } from "node:module";

const { DuckDBInstance } = createRequire(process.cwd() + "/")("@duckdb/node-api");
const files = process.argv.slice(2).map((f) => `'${f.replaceAll("'", "''")}'`).join(", ");
const db = await (await DuckDBInstance.create()).connect();
const query = async (sql) => (await db.runAndReadAll(sql)).getRowObjectsJson();

const columns = await query(`describe select * from read_parquet([${files}])`);
const [sums] = await query(`
  select count(*) as rows, sum(len(tokens)) as tokens, sum(bytes) as bytes, sum(list_sum(tokens)) as sum_of_ids,
         count(*) filter (where list_contains(tokens, 256)) as documents
  from read_parquet([${files}])`);
const metadata = await query(`select distinct decode(key) as key, decode(value) as value from parquet_kv_metadata([${files}])`);
console.log(JSON.stringify({
  columns: columns.map((c) => `${c.column_name}: ${c.column_type}`),
  sums: Object.fromEntries(Object.entries(sums).map(([k, v]) => [k, Number(v)])),
  metadata: Object.fromEntries(metadata.map((m) => [m.key, m.value])),
}));
