// Requests that reach a worker as signals. A handler only sets a flag; the loop asks at a step boundary, all
// ranks together.
#pragma once

namespace smlp {

// SIGUSR1, SIGTERM and SIGINT ask to save and leave. Asking again changes nothing: SLURM and the launcher both tell the
// ranks of one preemption. Who wants them gone at once says so to the launcher, which kills them.
// Called by the loop's thread, before others start: handlers run on a stack of their own. A handler's frame beneath the
// stack pointer of oneDNN's generated products destroys the heap: one signal in a hundred ended a rank.
void install_stop_signals();
bool stop_requested() noexcept;
void handle_signal(int signal, void (*handler)(int));  // on that stack too

// The process dies with the one that started it (mpirun, srun's step daemon): no orphan computes on.
void die_with_parent();

}  // namespace smlp
