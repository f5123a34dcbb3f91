// What tests ask of the NCCL of the emulation beside its own calls.
#pragma once

namespace smlp::emulation {

int nccl_communicators();              // alive in this process
int nccl_operations();                 // collectives, and groups that had anything to send or receive
void fail_nccl_operation(int number);  // of this process, counted from 1: it never ends, and its peers are gone
bool nccl_was_aborted();
void hang_in_nccl_abort();  // from now on, whoever calls it

}  // namespace smlp::emulation
