// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// For LD_PRELOAD: on the thread that FAILING_THREAD names, two calls that cannot fail do fail, once each: epoll_wait on a
// descriptor of one's own, and clock_gettime of a clock that every Linux has. Coracle and Rust's standard library panic then, so
// that a test sees what becomes of a panic on each kind of thread, and the product needs no switch for it.
//
// `main` is spared until it has waited once: before that it only prepares.

#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static _Thread_local int has_waited, has_told_time;

static int is_main(void) {
    return gettid() == getpid();
}

static int is_meant(void) {
    char name[16] = "main";
    const char *wanted = getenv("FAILING_THREAD");
    if (!is_main())
        prctl(PR_GET_NAME, name);
    return wanted && strcmp(name, wanted) == 0;
}

int epoll_wait(int set, struct epoll_event *events, int size, int milliseconds) {
    if (!has_waited && is_meant()) {
        has_waited = 1;
        errno = EBADF;
        return -1;
    }
    return syscall(SYS_epoll_wait, set, events, size, milliseconds);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!has_told_time && (has_waited || !is_main()) && is_meant()) {
        has_told_time = 1;
        errno = EINVAL;
        return -1;
    }
    return syscall(SYS_clock_gettime, clock, time);
}
