#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Shows where it runs, then does a little work. Without a subprocess: a fork is dear where kernel mode is emulated."""

import os
import pwd
import sys


def field(path, name):
    """The first value of a `name: value` line of a file of /proc."""
    with open(path) as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return "unknown"


def primes(limit):
    """The primes below a limit, by the sieve of Eratosthenes."""
    sieve = bytearray([1]) * limit
    sieve[:2] = b"\0\0"
    for number in range(2, int(limit**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, limit, number)))
    return [number for number in range(limit) if sieve[number]]


def main():
    system = os.uname()
    user = pwd.getpwuid(os.getuid())
    rows = [
        ("kernel", f"{system.sysname} {system.release} on {system.machine}"),
        ("host name", system.nodename),
        ("processors", f"{os.cpu_count()} × {field('/proc/cpuinfo', 'model name')}"),
        ("memory", field("/proc/meminfo", "MemTotal")),
        ("process", f"{os.getpid()}, user {user.pw_name} ({os.getuid()}), groups {sorted(os.getgroups())}"),
        ("folder", os.getcwd()),
        ("python", sys.version.split()[0]),
    ]
    print(os.environ.get("GREETING", "Hello"))
    for name, value in rows:
        print(f"  {name:<11} {value}")
    found = primes(100_000)
    print(f"  {'primes':<11} {len(found)} below 100000, the last ones {', '.join(map(str, found[-3:]))}")


if __name__ == "__main__":
    main()
