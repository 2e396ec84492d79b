// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// remote_calls PID THREAD: makes system calls on the thread THREAD (`main`: the first one) of the process, as code that had taken it
// over could. The thread's filters see them; the process itself does not go on, and is not to be used afterwards.
//
// Prints `ready ADDRESS SIZE`, memory of the process for arguments. Then each line of standard input is a command, and gets one line:
//     w ADDRESS HEX...               writes bytes there: `ok`
//     c NUMBER ARGUMENT...           makes the call, with six arguments: its result, or
//         refused                    a filter raised SIGSYS
//         executed                   the process is another program now
//         ended                      there is no such thread any more
// A process or thread that a call made is killed, or never runs.

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "threads.h"

enum { MEMORY_SIZE = 64 << 10 };

static pid_t process, thread;
static struct user_regs_struct start;

static void fail(const char *what) {
    fprintf(stderr, "remote_calls: ");
    perror(what);
    exit(1);
}

static int is_event(int status, int event) {
    return status >> 8 == (SIGTRAP | (event << 8));
}

static void kill_new_process(void) {
    unsigned long new = 0;
    ptrace(PTRACE_GETEVENTMSG, thread, 0, &new);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%lu", process, new);
    // A thread cannot be killed alone. It stays stopped.
    if (access(path, F_OK) != 0) {
        kill(new, SIGKILL);
    }
}

// Goes on to the next entry or exit of a system call. Returns NULL there, or what happened instead.
static const char *go_on(void) {
    for (int status;;) {
        if (ptrace(PTRACE_SYSCALL, thread, 0, 0))
            return "ended";
        pid_t stopped = waitpid(-1, &status, __WALL);
        // New processes stop, too, until they are killed.
        while (stopped > 0 && stopped != thread && !is_event(status, PTRACE_EVENT_EXEC))
            stopped = waitpid(-1, &status, __WALL);
        // A thread that executes a program becomes the first one of its process.
        if (stopped > 0 && is_event(status, PTRACE_EVENT_EXEC))
            return "executed";
        if (stopped < 0 || !WIFSTOPPED(status))
            return "ended";
        if (is_event(status, PTRACE_EVENT_FORK) || is_event(status, PTRACE_EVENT_VFORK) ||
            is_event(status, PTRACE_EVENT_CLONE))
            kill_new_process();
        else if (WSTOPSIG(status) == (SIGTRAP | 0x80))
            return NULL;
        // Any other signal is not delivered.
    }
}

// The SIGSYS of a filter is pending from the end of the refused call on.
static int has_pending_sigsys(void) {
    char path[64], line[200];
    unsigned long long pending = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/status", process, thread);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        sscanf(line, "SigPnd: %llx", &pending);
    if (file)
        fclose(file);
    return pending >> (SIGSYS - 1) & 1;
}

// Returns NULL and the result, or what happened instead.
static const char *make_call(unsigned long number, const unsigned long arguments[6], long *result) {
    struct user_regs_struct registers = start;
    registers.rax = number;
    registers.rdi = arguments[0];
    registers.rsi = arguments[1];
    registers.rdx = arguments[2];
    registers.r10 = arguments[3];
    registers.r8 = arguments[4];
    registers.r9 = arguments[5];
    if (ptrace(PTRACE_SETREGS, thread, 0, &registers))
        return "ended";
    const char *happened = go_on();
    if (!happened)
        happened = go_on();
    if (happened)
        return happened;
    if (has_pending_sigsys())
        return "refused";
    if (ptrace(PTRACE_GETREGS, thread, 0, &registers))
        return "ended";
    *result = registers.rax;
    return NULL;
}

// Stops the thread behind a `syscall` instruction, to which each call goes back.
static void attach(void) {
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                   PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
    int status;
    if (ptrace(PTRACE_SEIZE, thread, 0, options) || ptrace(PTRACE_INTERRUPT, thread, 0, 0) ||
        waitpid(thread, &status, __WALL) != thread)
        fail("ptrace");
    for (int attempt = 0; attempt < 2; attempt++) {
        if (ptrace(PTRACE_GETREGS, thread, 0, &start))
            fail("registers");
        long code = ptrace(PTRACE_PEEKTEXT, thread, start.rip - 2, 0);
        if ((code & 0xffff) == 0x050f) {
            start.rip -= 2;
            // Otherwise the kernel would restart the call that was interrupted.
            start.orig_rax = -1;
            return;
        }
        if (go_on() || go_on())
            fail("the thread makes no system call");
    }
    fail("no syscall instruction");
}

static void write_memory(char *words) {
    char *rest;
    unsigned long address = strtoul(words, &rest, 0);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", process);
    int memory = open(path, O_WRONLY | O_CLOEXEC);
    unsigned byte;
    for (int length = 0; sscanf(rest, " %2x%n", &byte, &length) == 1; rest += length) {
        unsigned char bytes[1] = {byte};
        if (pwrite(memory, bytes, 1, address++) != 1)
            fail("memory");
    }
    close(memory);
    puts("ok");
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 1;
    process = atoi(argv[1]);
    thread = find_thread(process, argv[2]);
    attach();
    setvbuf(stdout, NULL, _IOLBF, 0);
    unsigned long mapping[6] = {0, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0};
    long result = -1;
    if (make_call(SYS_mmap, mapping, &result) || result < 0)
        fail("no memory for arguments");
    printf("ready %#lx %d\n", result, MEMORY_SIZE);
    static char line[8192];
    while (fgets(line, sizeof line, stdin)) {
        if (line[0] == 'w') {
            write_memory(line + 1);
            continue;
        }
        unsigned long words[7] = {0};
        char *rest = line + 1;
        for (int word = 0; word < 7; word++)
            words[word] = strtoull(rest, &rest, 0);
        const char *happened = make_call(words[0], words + 1, &result);
        if (happened)
            puts(happened);
        else
            printf("%ld\n", result);
    }
    return 0;
}
