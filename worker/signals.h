// Requests that reach a worker as signals. A handler only sets a flag; the loop asks at a step boundary, all
// ranks together (StepFlags).
#pragma once

namespace smlp {

// SIGUSR1, SIGTERM and SIGINT ask to save and leave. Asking again changes nothing: SLURM and the launcher both tell the
// ranks of one preemption. Who wants them gone at once says so to the launcher, which kills them.
void install_stop_signals();
bool stop_requested() noexcept;

// The process dies with the one that started it (mpirun, srun's step daemon): no orphan computes on.
void die_with_parent();

}  // namespace smlp
