// Which queries see which keys in a sequence of `tokens` tokens, of which a query sees at most
// `window`. With DOCUMENTS, start[t] is the index at which token t's document begins, and a query
// doesn't see other documents.

// first_key returns the first key that a query sees.
__device__ __forceinline__ int first_key(const int *start, int query, int tokens, int window) {
  int first = max(0, query - window + 1);
#ifdef DOCUMENTS
  first = max(first, start[min(query, tokens - 1)]);
#endif
  return first;
}

// query_end returns the first query after those that see a key. It must be called by a whole warp.
__device__ __forceinline__ int query_end(const int *start, int key, int tokens, int window) {
  int end = (int)min((int64_t)tokens, (int64_t)key + window);
#ifdef DOCUMENTS
  // All queries from the key to begin see it, and end doesn't: the lanes probe places between.
  int begin = key = min(key, tokens - 1);
  while (begin < end) {
    int size = (end - begin + WARP - 1) / WARP, at = begin + threadIdx.x % WARP * size;
    int seen = __popc(__ballot_sync(FULL, at < end && start[at] <= key));
    end = min(end, begin + seen * size);
    if (seen > 0) begin += (seen - 1) * size + 1;
  }
#endif
  return end;
}
