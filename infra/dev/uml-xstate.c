/* Lets user-mode-linux run on any processor. Debian's was built for processors whose state of vector registers
 * has one certain size; where it is larger (AMX), the host's kernel refuses to set only the part that
 * user-mode-linux knows. This sets that part and leaves the rest as it is.
 *
 * For LD_PRELOAD. Built and used by test-v2.sh. */
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define NT_X86_XSTATE 0x202

/* Not on the stack: user-mode-linux calls this on kernel stacks. It has one processor and no threads. */
static char whole[1 << 16];

static long call(long request, long pid, void *address, void *data) {
  return syscall(SYS_ptrace, request, pid, address, data);
}

static long set_part(long pid, void *address, const struct iovec *part) {
  struct iovec all = {whole, sizeof whole};
  if (call(PTRACE_GETREGSET, pid, address, &all) != 0 || all.iov_len < part->iov_len)
    return call(PTRACE_SETREGSET, pid, address, (void *)part);
  memcpy(whole, part->iov_base, part->iov_len);
  return call(PTRACE_SETREGSET, pid, address, &all);
}

long ptrace(enum __ptrace_request request, ...) {
  va_list rest;
  va_start(rest, request);
  long pid = va_arg(rest, long);
  void *address = va_arg(rest, void *);
  void *data = va_arg(rest, void *);
  va_end(rest);
  if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE)
    return set_part(pid, address, data);
  /* The C library returns what the system call writes. */
  if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
    long word;
    if (call(request, pid, address, &word) != 0)
      return -1;
    errno = 0;
    return word;
  }
  return call(request, pid, address, data);
}
