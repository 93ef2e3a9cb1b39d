"""A DNS server that knows three endpoints for every service and whose answers hold for an hour: it stands in for the
agent's where a configuration is measured alone.

    python3 hack/bench/names.py ADDRESS PORT...
"""

import selectors
import socket
import struct
import sys
import zlib


def answer(query):
    end = query.index(b"\0", 12) + 1
    (kind,) = struct.unpack("!H", query[end : end + 2])
    labels = []
    at = 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]])
        at += 1 + query[at]
    records = []
    if kind == 33:  # SRV
        crc = zlib.crc32(b".".join(labels))
        for pod in range(3):
            target = b"-".join(b"%d" % byte for byte in (127, 150 + pod, crc >> 8 & 255, crc & 255))
            target = bytes([len(target)]) + target + b"\1e\0"
            records.append(struct.pack("!HHH", 0, 1, 9000 + pod) + target)
    elif kind == 1:
        records.append(bytes(map(int, labels[0].split(b"-"))))
    head = query[:2] + b"\x85\0" + struct.pack("!HHHH", 1, len(records), 0, 0) + query[12 : end + 4]
    return head + b"".join(struct.pack("!HHHIH", 0xC00C, kind, 1, 3600, len(r)) + r for r in records)


def main(address, *ports):
    selector = selectors.DefaultSelector()
    for port in ports:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((address, int(port)))
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            try:
                for _ in range(32):
                    query, client = key.fileobj.recvfrom(2048)
                    key.fileobj.sendto(answer(query), client)
            except BlockingIOError:
                pass


main(*sys.argv[1:])
