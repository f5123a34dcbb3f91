// What sanitized programs take for granted: linked into each of them, so that a rank started by mpirun, a child of a
// test and a program started by hand all report alike, with nothing set in the environment (ASAN_OPTIONS and its
// kin still win). Every suppression names one library and says why; nothing of this project is ever listed.
#include <dlfcn.h>

#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <cstdlib>

// Of both: memory that is not there stays an error that the program answers (a test asks for 8 PiB), and a fault
// ends a process by a signal, as it does without a sanitizer: the supervisor tells the two apart.
#define SMLP_COMMON_OPTIONS "allocator_may_return_null=1:abort_on_error=1"

extern "C" {

const char* __asan_default_options() {
  return SMLP_COMMON_OPTIONS ":detect_stack_use_after_return=1:strict_string_checks=1";
}

const char* __ubsan_default_options() { return "print_stacktrace=1"; }

// At exit it would sleep a second for threads that go on: ours are joined, and tests fork hundreds of times.
const char* __tsan_default_options() { return SMLP_COMMON_OPTIONS ":second_deadlock_stack=1:atexit_sleep_ms=0"; }

// Open MPI and what it loads keep what they allocate at MPI_Init for the life of the process. Their plug-ins stay
// loaded here (dlclose below), and the texts that they print into new memory are made here (__asprintf_chk below), so
// that each leak has a library's name.
const char* __lsan_default_suppressions() {
  return "leak:libmpi.so\n"
         "leak:libopen-rte.so\n"
         "leak:libopen-pal.so\n"
         "leak:libpmix.so\n"
         "leak:libhwloc.so\n"
         "leak:libevent_core\n"
         "leak:/openmpi3/mca_\n"
         "leak:/pmix2/\n"
         "leak:libucs.so\n"
         "leak:libucp.so\n"
         "leak:libuct.so\n"
         "leak:libfabric.so\n";
}

// Open MPI's transports take their own two locks in one order while peers are added and in the other while they are
// removed or written to: never at the same time in a process whose one thread calls MPI. The web server behind the
// exporter asks for the date of a refusal's header with gmtime, whose answer its threads share; this project asks with
// gmtime_r alone.
const char* __tsan_default_suppressions() {
  return "deadlock:mca_btl_tcp.so\n"
         "deadlock:mca_btl_vader.so\n"
         "race_top:gmtime\n";
}
}

#if defined(__SANITIZE_ADDRESS__)
extern "C" {
int dlclose(void*) { return 0; }

// What libraries call where their sources say asprintf: the C library's own keep no frame pointers, so a stack that
// goes through them ends there.
int __vasprintf_chk(char** to, int, const char* format, va_list values) {
  va_list again;
  va_copy(again, values);
  const int length = vsnprintf(nullptr, 0, format, again);
  va_end(again);
  *to = length < 0 ? nullptr : static_cast<char*>(std::malloc(static_cast<std::size_t>(length) + 1));
  return *to == nullptr ? -1 : vsnprintf(*to, static_cast<std::size_t>(length) + 1, format, values);
}

int __asprintf_chk(char** to, int flag, const char* format, ...) {
  va_list values;
  va_start(values, format);
  const int length = __vasprintf_chk(to, flag, format, values);
  va_end(values);
  return length;
}
}
#endif
