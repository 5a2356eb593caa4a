#!/usr/bin/python3
"""`nc -z`, and `nc` that sends its input and prints what comes back: as much as the tests use."""

import socket
import sys

short, wait, rest, udp, scan = "", 5.0, [], False, False
words = iter(sys.argv[1:])
for word in words:
    if word.startswith("-"):
        udp |= "u" in word
        scan |= "z" in word
        if word.endswith("w"):
            wait = float(next(words))
    else:
        rest.append(word)
host, port = rest[0], int(rest[1])
kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
try:
    family, kind, proto, _, address = socket.getaddrinfo(host, port, 0, kind)[0]
    with socket.socket(family, kind, proto) as sock:
        sock.settimeout(wait)
        sock.connect(address)
        if scan and udp:
            sock.send(b"X")
            sock.settimeout(1)
            try:
                sock.recv(1)
            except TimeoutError:
                pass
        elif not scan:
            data = sys.stdin.buffer.read()
            sock.send(data)
            if not udp:
                sock.shutdown(socket.SHUT_WR)
            sys.stdout.buffer.write(sock.recv(65536))
    print(f"Connection to {host} {port} port succeeded!", file=sys.stderr)
except OSError as error:
    print(f"nc: connect to {host} port {port}: {error}", file=sys.stderr)
    sys.exit(1)
