// Package data is the path from text to batches of tokens:
//
//	text folder -> Tokenizer -> Parquet token shards -> Arrow records -> packed (B, T+1) batches
//
// [Prepare] writes a folder of shards once, [Inspect] and [Verify] check it, [Open] opens one split as a
// [Dataset], and [NewLoader] streams its batches ahead of the training thread.
//
// The batch at step s is a pure function of (shards, mixture, seq_len, seed, s), so a checkpoint stores s alone.
// docs/data.md has the shard's schema and the rules of packing and order.
package data
