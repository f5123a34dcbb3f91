// What a launcher must get right: every rank knows the others. `sum_ranks SECONDS` goes on until the time is over.
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int count, char** arguments) {
  MPI_Init(&count, &arguments);
  int rank, size, sum, here;
  char host[64];
  MPI_Comm node;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &node);
  MPI_Comm_size(node, &here);
  gethostname(host, sizeof host);
  const double end = MPI_Wtime() + (count > 1 ? atof(arguments[1]) : 0);
  int more = 1;
  while (more) {
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    more = MPI_Wtime() < end;
    MPI_Bcast(&more, 1, MPI_INT, 0, MPI_COMM_WORLD);
    if (more) usleep(100000);
  }
  printf("rank %d of %d on %s with %d there, sum %d\n", rank, size, host, here, sum);
  MPI_Finalize();
  return 0;
}
