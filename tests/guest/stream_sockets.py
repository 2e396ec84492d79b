# SPDX-License-Identifier: Apache-2.0 OR MIT
# Runs in the guest: digests what programs of the host send to port 5000, and sends to ports of the host.
import hashlib
import socket
import sys
import threading

BLOCK = bytes(range(256)) * 256


def digest(connection):
    """Answers with length and digest once the other side has shut down its half."""
    total, sha256 = 0, hashlib.sha256()
    while part := connection.recv(65536):
        total += len(part)
        sha256.update(part)
    connection.sendall(f"{total} {sha256.hexdigest()}\n".encode())
    connection.close()


def serve():
    listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    listener.bind((socket.VMADDR_CID_ANY, 5000))
    listener.listen(64)
    print("listening", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=digest, args=(connection,), daemon=True).start()


def connect(port):
    connection = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    connection.connect((socket.VMADDR_CID_HOST, port))
    return connection


threading.Thread(target=serve, daemon=True).start()
try:
    connect(81)
except OSError as error:
    print("port 81:", error.strerror, flush=True)
# The host does not read from this one.
unread = connect(82)
unread.setblocking(False)
filled = 0
try:
    while True:
        filled += unread.send(BLOCK)
except BlockingIOError:
    print("port 82 is full:", 0 < filled < 16 << 20, flush=True)
sender, sha256 = connect(80), hashlib.sha256()
for _ in range(int(sys.argv[1])):
    sender.sendall(BLOCK)
    sha256.update(BLOCK)
sender.shutdown(socket.SHUT_WR)
print("sent", sha256.hexdigest(), sender.recv(100).decode(), flush=True)
threading.Event().wait()
