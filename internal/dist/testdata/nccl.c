// A library with the functions of NCCL that a run calls, for one process: it checks that
// arguments arrive as nccl.h declares them, and copies.
#include <stddef.h>
#include <string.h>

typedef struct { char internal[128]; } ncclUniqueId;
typedef int ncclResult_t;
enum { ok = 0, invalid = 4 };

static int communicator;

ncclResult_t ncclGetVersion(int *v) { *v = 22809; return ok; }
const char *ncclGetErrorString(ncclResult_t r) { return r == invalid ? "invalid argument" : "no error"; }

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
	for (int i = 0; i < 128; i++) id->internal[i] = (char)(i * 7 + 1);
	return ok;
}

ncclResult_t ncclCommInitRank(void **comm, int nranks, ncclUniqueId id, int rank) {
	for (int i = 0; i < 128; i++)
		if (id.internal[i] != (char)(i * 7 + 1)) return invalid;
	if (nranks != 5 || rank != 3) return invalid;
	*comm = &communicator;
	return ok;
}

static ncclResult_t copy(const void *from, void *to, size_t n, int type, void *comm, void *stream) {
	if (comm != &communicator || stream != (void *)0x1234) return invalid;
	memmove(to, from, n * (type == 7 ? 4 : type == 9 ? 2 : 0));
	return ok;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t n, int type, int op, void *comm, void *stream) {
	return op == 0 ? copy(from, to, n, type, comm, stream) : invalid;
}
ncclResult_t ncclReduceScatter(const void *from, void *to, size_t n, int type, int op, void *comm, void *stream) {
	return op == 0 ? copy(from, to, n, type, comm, stream) : invalid;
}
ncclResult_t ncclAllGather(const void *from, void *to, size_t n, int type, void *comm, void *stream) {
	return copy(from, to, n, type, comm, stream);
}
ncclResult_t ncclBroadcast(const void *from, void *to, size_t n, int type, int root, void *comm, void *stream) {
	return root == 2 ? copy(from, to, n, type, comm, stream) : invalid;
}
ncclResult_t ncclCommDestroy(void *comm) { return comm == &communicator ? ok : invalid; }
