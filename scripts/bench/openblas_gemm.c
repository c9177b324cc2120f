// Times OpenBLAS's float32 matrix product C[M N] = op(A)[M K] op(B)[K N], row-major, and prints the median
// GFLOP/s. The peer of BenchmarkGemm in graph/cpu/simd.
//
//   openblas_gemm M N K transposes threads rounds
//
// transposes is NN, NT, TN or TT: which of A and B are stored transposed.
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

static int compare(const void *x, const void *y) {
  double a = *(const double *)x, b = *(const double *)y;
  return (a > b) - (a < b);
}

static float *matrix(size_t n) {
  float *x = aligned_alloc(64, (4 * n + 63) / 64 * 64);
  if (!x) {
    perror("aligned_alloc");
    exit(1);
  }
  for (size_t i = 0; i < n; i++) x[i] = (float)rand() / (float)RAND_MAX - 0.5f;
  return x;
}

int main(int argc, char **argv) {
  if (argc != 7 || strlen(argv[4]) != 2) {
    fprintf(stderr, "usage: %s M N K NN|NT|TN|TT threads rounds\n", argv[0]);
    return 2;
  }
  int m = atoi(argv[1]), n = atoi(argv[2]), k = atoi(argv[3]), rounds = atoi(argv[6]);
  int ta = argv[4][0] == 'T', tb = argv[4][1] == 'T';
  openblas_set_num_threads(atoi(argv[5]));
  float *a = matrix((size_t)m * k), *b = matrix((size_t)k * n), *c = matrix((size_t)m * n);

  // A round lasts 20 ms at least, so that the clock and the threads' start don't show.
  double flop = 2.0 * m * n * k;
  int calls = 0;
  double *rate = malloc(rounds * sizeof *rate);
  for (int r = -1; r < rounds; r++) {
    double start = seconds(), took;
    int done = 0;
    do {
      cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, m, n, k, 1,
                  a, ta ? m : k, b, tb ? k : n, 0, c, n);
      done++;
      took = seconds() - start;
    } while (r < 0 ? took < 0.02 : done < calls);
    if (r < 0)
      calls = done;
    else
      rate[r] = flop * done / took / 1e9;
  }
  qsort(rate, rounds, sizeof *rate, compare);
  printf("%.2f %s\n", rate[rounds / 2], openblas_get_corename());
  return 0;
}
