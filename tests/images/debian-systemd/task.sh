#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Does what the variable TASK says, if it is there.
exec sh -c "${TASK:-:}"
