/* LD_PRELOADed into the ranks of tests: each sum over ranks takes some milliseconds longer, as over a slow network. Steps last
   long enough that things happen within a run, without computing all that time on cores that other tests could use. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <mpi.h>
#include <unistd.h>

int MPI_Allreduce(const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, MPI_Comm ranks) {
  static int (*sum)(const void*, void*, int, MPI_Datatype, MPI_Op, MPI_Comm);
  if (!sum) sum = (int (*)(const void*, void*, int, MPI_Datatype, MPI_Op, MPI_Comm))dlsym(RTLD_NEXT, "MPI_Allreduce");
  usleep(SLOW_SUM_MICROSECONDS);
  return sum(in, out, count, type, op, ranks);
}
