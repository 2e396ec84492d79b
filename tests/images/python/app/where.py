# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Shows where it runs, then computes something."""

import os
import pwd
import sys
import time

from primes import primes_below


def first_value(path, name):
    """The value of the first `name: value` line of a file in /proc."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return "?"


def main():
    kernel = os.uname()
    user = pwd.getpwuid(os.getuid())
    print(f"kernel     {kernel.sysname} {kernel.release} {kernel.machine}, {kernel.version}")
    print(f"processor  {os.cpu_count()} x {first_value('/proc/cpuinfo', 'model name')}")
    print(f"memory     {int(first_value('/proc/meminfo', 'MemTotal').split()[0]) // 1024} MiB")
    print(f"host name  {kernel.nodename}")
    print(f"process    {os.getpid()}, user {user.pw_name} ({os.getuid()}:{os.getgid()}), in {os.getcwd()}")
    print(f"greeting   {os.environ.get('GREETING', '')}")
    print(f"python     {sys.version.split()[0]}")

    start = time.perf_counter()
    primes = primes_below(1_000_000)
    elapsed = time.perf_counter() - start
    print(f"primes     {len(primes)} below a million, the last is {primes[-1]}, in {elapsed * 1000:.0f} ms")


if __name__ == "__main__":
    main()
