// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// failing_use CALL USE ERRNO REPORT PROGRAM [ARG...]: executes PROGRAM in this process. Its use number USE (from 1) of the system
// call with the number CALL, on whichever thread, fails with ERRNO and is not made; with 0 none fails. The file REPORT gets one
// line: the uses that there were, and the thread of the one that failed, or `-`.
//
// A filter passes the call to a supervisor (seccomp's user notification), a grandchild: the program remains the child of its
// parent, and has no child that it does not know of. Other processes that the program starts make the call undisturbed.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// Between program and supervisor, which share memory so that they need no system call.
struct shared {
    atomic_int is_seized, listener, is_taken;
};

static void fail(const char *what) {
    perror(what);
    _exit(125);
}

static void read_name(pid_t process, pid_t thread, char *name, size_t size) {
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", process, thread);
    FILE *file = fopen(path, "r");
    if (!file || !fgets(name, size, file))
        snprintf(name, size, "?");
    if (file)
        fclose(file);
    name[strcspn(name, "\n")] = 0;
}

static void supervise(int listener, pid_t process, long use, int error, int report) {
    char name[32] = "-";
    long uses = 0;
    struct pollfd ready = {.fd = listener, .events = POLLIN};
    while (poll(&ready, 1, -1) >= 0 && !(ready.revents & POLLHUP)) {
        struct seccomp_notif call = {0};
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) < 0)
            continue;
        struct seccomp_notif_resp answer = {.id = call.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        // Adding one to an eventfd cannot fail, and a wake-up that is lost would only show that.
        int is_event = call.data.nr == SYS_write && call.data.args[2] == 8;
        // Signal 0 only asks whether the thread is one of the program's.
        if (!is_event && syscall(SYS_tgkill, process, call.pid, 0) == 0 && ++uses == use) {
            answer.flags = 0;
            answer.error = -error;
            read_name(process, call.pid, name, sizeof(name));
        }
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
    dprintf(report, "%ld %s\n", uses, name);
}

static int filter(unsigned call) {
    struct sock_filter instructions[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(instructions) / sizeof(*instructions), instructions};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        fail("failing_use: no_new_privs");
    // Otherwise a signal makes the kernel repeat the call, and it would be counted twice.
    long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

int main(int count, char **words) {
    if (count < 6) {
        fprintf(stderr, "usage: failing_use CALL USE ERRNO REPORT PROGRAM [ARG...]\n");
        return 125;
    }
    pid_t process = getpid();
    struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int report = open(words[4], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (shared == MAP_FAILED || report < 0)
        fail("failing_use");
    shared->listener = -1;
    // They share descriptors until the supervisor has the listener.
    pid_t child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) {
        if (syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0) != 0)
            _exit(0);
        setsid();
        // Only the program counts as one of the test's processes.
        for (char **variable = environ; *variable; variable++)
            memset(*variable, 0, strlen(*variable));
        shared->is_seized = 1;
        while (shared->listener < 0)
            sched_yield();
        int listener = fcntl(shared->listener, F_DUPFD_CLOEXEC, 1000);
        report = fcntl(report, F_DUPFD_CLOEXEC, 1000);
        syscall(SYS_close_range, 0, 0, CLOSE_RANGE_UNSHARE);
        syscall(SYS_close_range, 0, 999, 0);
        shared->is_taken = 1;
        supervise(listener, process, atol(words[2]), atoi(words[3]), report);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    while (!shared->is_seized)
        sched_yield();
    int listener = filter(strtoul(words[1], NULL, 0));
    if (listener < 0)
        fail("failing_use: seccomp");
    shared->listener = listener;
    // From here on the call may be the one that fails.
    while (!shared->is_taken)
        ;
    execv(words[5], words + 5);
    fail(words[5]);
}
