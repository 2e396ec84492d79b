// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Does a task keep its vector, mask and x87 registers while others compete for the processor?
 *
 *     vector_state TASKS THREADS ROUNDS SPINS
 *
 * TASKS processes of THREADS threads each run ROUNDS rounds. A round fills every register with a pattern of its own,
 * spins (so that the timer takes the processor away), makes a system call with the registers live, spins again,
 * and compares. The system call is sched_yield, and fork in every eighth round: then the child compares too. A timer signal
 * interrupts all that, whose handler fills the same registers with patterns of its own. Prints one line of counts;
 * the exit status is 0 only if nothing differed.
 */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

struct registers {
    uint8_t vector[32][64];
    uint16_t mask[8];
    double x87;
    uint16_t x87_control;
    uint16_t padding;
    uint32_t mxcsr;
} __attribute__((aligned(64)));

struct counts {
    long rounds, signals, forks, mismatches;
};

static struct counts *counts;
static int avx512, avx, rounds;
static uint64_t spins;
static __thread int in_handler_depth;

#define PROLOGUE "fldcw %[in_cw]\n fldl %[in_x87]\n ldmxcsr %[in_mxcsr]\n"
#define SPIN_CALL_SPIN                                                                                                 \
    "mov %[spins], %%rdx\n 1: dec %%rdx\n jnz 1b\n"                                                                    \
    "syscall\n"                                                                                                        \
    "mov %[spins], %%rdx\n 2: dec %%rdx\n jnz 2b\n"
#define EPILOGUE "stmxcsr %[out_mxcsr]\n fstpl %[out_x87]\n fnstcw %[out_cw]\n fninit\n ldmxcsr %[default_mxcsr]\n"
#define OUTPUTS [out_cw] "=m"(out->x87_control), [out_x87] "=m"(out->x87), [out_mxcsr] "=m"(out->mxcsr)
#define INPUTS                                                                                                         \
    [in] "r"(in), [out] "r"(out), [spins] "r"(spin), [in_cw] "m"(in->x87_control), [in_x87] "m"(in->x87),              \
        [in_mxcsr] "m"(in->mxcsr), [default_mxcsr] "m"(default_mxcsr)
#define LOW "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", \
        "xmm13", "xmm14", "xmm15", "rcx", "rdx", "r11", "memory", "cc"
#define HIGH "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26",        \
        "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5", "k6", "k7"
#define FIRST_16 "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"
#define LAST_16 "16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"

/* Registers from `in`, spin, system call, spin, registers to `out`: one block, so that no compiler touches them. */
__attribute__((target("avx512f"))) static long hold_avx512(const struct registers *in, struct registers *out, long call,
                                                            uint64_t spin) {
    const uint32_t default_mxcsr = 0x1f80;
    __asm__ volatile(".irp i," FIRST_16 "," LAST_16 "\n vmovdqa64 64*\\i(%[in]), %%zmm\\i\n .endr\n"
                     ".irp i,1,2,3,4,5,6,7\n kmovw 2048+2*\\i(%[in]), %%k\\i\n .endr\n" PROLOGUE SPIN_CALL_SPIN
                     ".irp i," FIRST_16 "," LAST_16 "\n vmovdqa64 %%zmm\\i, 64*\\i(%[out])\n .endr\n"
                     ".irp i,1,2,3,4,5,6,7\n kmovw %%k\\i, 2048+2*\\i(%[out])\n .endr\n" EPILOGUE "vzeroupper\n"
                     : "+a"(call), OUTPUTS
                     : INPUTS
                     : LOW, HIGH);
    return call;
}

__attribute__((target("avx"))) static long hold_avx(const struct registers *in, struct registers *out, long call,
                                                    uint64_t spin) {
    const uint32_t default_mxcsr = 0x1f80;
    __asm__ volatile(".irp i," FIRST_16 "\n vmovdqa 64*\\i(%[in]), %%ymm\\i\n .endr\n" PROLOGUE SPIN_CALL_SPIN
                     ".irp i," FIRST_16 "\n vmovdqa %%ymm\\i, 64*\\i(%[out])\n .endr\n" EPILOGUE "vzeroupper\n"
                     : "+a"(call), OUTPUTS
                     : INPUTS
                     : LOW);
    return call;
}

static long hold_sse(const struct registers *in, struct registers *out, long call, uint64_t spin) {
    const uint32_t default_mxcsr = 0x1f80;
    __asm__ volatile(".irp i," FIRST_16 "\n movdqa 64*\\i(%[in]), %%xmm\\i\n .endr\n" PROLOGUE SPIN_CALL_SPIN
                     ".irp i," FIRST_16 "\n movdqa %%xmm\\i, 64*\\i(%[out])\n .endr\n" EPILOGUE
                     : "+a"(call), OUTPUTS
                     : INPUTS
                     : LOW);
    return call;
}

static void fill(struct registers *registers, uint64_t seed) {
    uint8_t *bytes = (uint8_t *)registers->vector;
    for (size_t i = 0; i < sizeof registers->vector; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        bytes[i] = seed >> 56;
    }
    for (int i = 0; i < 8; i++)
        registers->mask[i] = (seed >> (8 * (i % 6))) | 1;
    registers->x87 = (double)(seed >> 12);
    registers->x87_control = 0x037f ^ ((seed >> 40 & 3) << 10); /* rounding */
    registers->mxcsr = 0x1f80 ^ ((seed >> 44 & 3) << 13);       /* rounding */
}

static int differ(const struct registers *in, const struct registers *out, const char *where) {
    int count = 0, vectors = avx512 ? 32 : 16, width = avx512 ? 64 : avx ? 32 : 16;
    for (int i = 0; i < vectors; i++)
        count += memcmp(in->vector[i], out->vector[i], width) != 0;
    for (int i = 1; avx512 && i < 8; i++)
        count += in->mask[i] != out->mask[i];
    count += in->x87 != out->x87;
    count += in->x87_control != out->x87_control;
    count += (in->mxcsr ^ out->mxcsr) >> 6 != 0; /* without the sticky flags */
    if (count)
        dprintf(2, "%s: %d registers differ\n", where, count);
    return count;
}

/* One hold and its comparison. A fork's child ends here; its exit status tells its parent. */
static void check(uint64_t seed, long call, uint64_t spin, const char *where) {
    struct registers in, out;
    memset(&in, 0, sizeof in);
    memset(&out, 0, sizeof out);
    fill(&in, seed);
    long answer = (avx512 ? hold_avx512 : avx ? hold_avx : hold_sse)(&in, &out, call, spin);
    int mismatches = differ(&in, &out, where);
    if (call == SYS_fork && answer == 0)
        _exit(mismatches != 0);
    if (call == SYS_fork) {
        int status = -1;
        mismatches += answer < 0 || waitpid(answer, &status, 0) != answer || status != 0;
        __atomic_add_fetch(&counts->forks, 1, __ATOMIC_RELAXED);
    }
    if (mismatches)
        __atomic_add_fetch(&counts->mismatches, mismatches, __ATOMIC_RELAXED);
}

static void on_timer(int number) {
    (void)number;
    if (in_handler_depth++ == 0) {
        long count = __atomic_add_fetch(&counts->signals, 1, __ATOMIC_RELAXED);
        check(count * 0x9e3779b97f4a7c15u ^ getpid(), SYS_getpid, 1000, "signal handler");
    }
    in_handler_depth--;
}

static void *work(void *argument) {
    uint64_t seed = ((uint64_t)getpid() << 32) + (uintptr_t)argument * 0x10001;
    for (int round = 0; round < rounds; round++) {
        int fork_now = round % 8 == 7;
        check(seed + round, fork_now ? SYS_fork : SYS_sched_yield, spins, fork_now ? "fork" : "task");
        __atomic_add_fetch(&counts->rounds, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static int task(int threads) {
    struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_RESTART};
    struct itimerval every = {{0, 30000}, {0, 30000}};
    pthread_t handles[64];
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
    for (long i = 1; i < threads; i++)
        if (pthread_create(&handles[i], NULL, work, (void *)i))
            return 1;
    work(NULL);
    for (int i = 1; i < threads; i++)
        pthread_join(handles[i], NULL);
    return 0;
}

int main(int count, char **arguments) {
    if (count != 5) {
        fputs("usage: vector_state TASKS THREADS ROUNDS SPINS\n", stderr);
        return 2;
    }
    int tasks = atoi(arguments[1]), threads = atoi(arguments[2]), failed = 0, status;
    rounds = atoi(arguments[3]);
    spins = strtoull(arguments[4], NULL, 10);
    avx512 = __builtin_cpu_supports("avx512f");
    avx = __builtin_cpu_supports("avx");
    counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED || threads > 64)
        return 2;
    for (int i = 0; i < tasks; i++) {
        pid_t child = fork();
        if (child < 0)
            return 2;
        if (child == 0)
            _exit(task(threads));
    }
    for (int i = 0; i < tasks; i++)
        failed += wait(&status) < 0 || status != 0;
    printf("registers=%s rounds=%ld signals=%ld forks=%ld failed=%d mismatches=%ld\n",
           avx512 ? "avx512" : avx ? "avx" : "sse", counts->rounds, counts->signals, counts->forks, failed,
           counts->mismatches);
    return failed || counts->mismatches;
}
