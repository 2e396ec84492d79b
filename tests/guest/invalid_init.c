// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// An init that opens the control port and writes an invalid frame.

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

int main(void) {
    mkdir("/dev", 0755);
    if (mount("devtmpfs", "/dev", "devtmpfs", 0, ""))
        return 1;
    int port;
    // The driver adds its ports one by one.
    while ((port = open("/dev/vport0p1", O_RDWR)) < 0)
        usleep(1000);
    static const unsigned char longest[4] = {0xff, 0xff, 0xff, 0xff};
    if (write(port, longest, sizeof longest) != sizeof longest)
        return 2;
    pause();
    return 3;
}
