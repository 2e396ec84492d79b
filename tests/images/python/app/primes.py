# SPDX-License-Identifier: Apache-2.0 OR MIT
"""The sieve of Eratosthenes."""


def primes_below(limit):
    """Every prime below `limit`, in order."""
    composite = bytearray(limit)
    primes = []
    for number in range(2, limit):
        if not composite[number]:
            primes.append(number)
            composite[number * number :: number] = b"\x01" * len(range(number * number, limit, number))
    return primes
