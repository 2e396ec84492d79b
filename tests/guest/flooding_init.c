// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// An init that sends health reports as fast as it can. PROTOCOL_VERSION, from the kernel command line, is the version that it
// claims. Frames are a little-endian length and a payload; the first byte of the payload is the number of the message. A unit test of the
// protocol has the same bytes.

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static int port;

static void send_all(const unsigned char *bytes, size_t length) {
    while (length > 0) {
        ssize_t sent = write(port, bytes, length);
        if (sent > 0) {
            bytes += sent;
            length -= sent;
        }
    }
}

static void receive(unsigned char *bytes, size_t length) {
    while (length > 0) {
        ssize_t received = read(port, bytes, length);
        if (received > 0) {
            bytes += received;
            length -= received;
        }
    }
}

int main(void) {
    mkdir("/dev", 0755);
    if (mount("devtmpfs", "/dev", "devtmpfs", 0, ""))
        return 1;
    // The driver adds its ports one by one.
    while ((port = open("/dev/vport0p1", O_RDWR)) < 0)
        usleep(1000);
    const char *version = getenv("PROTOCOL_VERSION");
    const unsigned char hello[] = {2, 0, 0, 0, 0, version ? atoi(version) : 0};
    send_all(hello, sizeof hello);

    static unsigned char spec[4 << 20];
    unsigned char header[4];
    receive(header, sizeof header);
    receive(spec, header[0] | header[1] << 8 | header[2] << 16);
    static const unsigned char running[] = {1, 0, 0, 0, 2};
    send_all(running, sizeof running);

    // Healthy, no failures, exit status 0, four bytes of output.
    static const unsigned char health[] = {9, 0, 0, 0, 7, 1, 0, 0, 4, 'w', 'e', 'l', 'l'};
    static unsigned char flood[5000 * sizeof health];
    for (size_t at = 0; at < sizeof flood; at += sizeof health)
        memcpy(flood + at, health, sizeof health);
    for (;;)
        send_all(flood, sizeof flood);
}
