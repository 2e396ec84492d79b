// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Which signals arrive? Blocks all of them, those of the C library included, prints "up", then the number of each signal that
 * arrives, one per line. Ends with status 0 after TERM.
 */
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void)
{
    uint64_t all = ~UINT64_C(0);
    long signal = syscall(SYS_rt_sigprocmask, 0 /* SIG_BLOCK */, &all, 0, sizeof all);
    if (signal != 0)
        return 1;
    setvbuf(stdout, 0, _IOLBF, BUFSIZ);
    puts("up");
    do {
        signal = syscall(SYS_rt_sigtimedwait, &all, 0, 0, sizeof all);
        printf("signal %ld.\n", signal);
    } while (signal != 15 && signal > 0);
    return signal != 15;
}
