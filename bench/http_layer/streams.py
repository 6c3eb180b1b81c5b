"""streams.py - many event streams at once: memory of each, and events a second.

    python3 streams.py PORT PID PATH N SECONDS

PID is the server's; its resident memory and CPU time are read from /proc.  Prints one CSV line:
path,streams,bytes_each,events_per_s,cpu_us_per_event
"""
import os
import selectors
import socket
import sys
import time


def rss_bytes(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Rss:")) * 1024


def cpu_s(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    port, pid, path, n, seconds = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), float(sys.argv[5])
    request = (f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
               "Accept: text/event-stream\r\nUser-Agent: streams\r\nContent-Length: 400\r\n\r\n").encode() + b"x" * 400
    before = rss_bytes(pid)
    poll = selectors.DefaultSelector()
    socks = []
    for _ in range(n):
        s = socket.create_connection(("127.0.0.1", port))
        s.sendall(request)
        s.recv(65536)
        s.setblocking(False)
        poll.register(s, selectors.EVENT_READ)
        socks.append(s)
    time.sleep(0.5)
    each = (rss_bytes(pid) - before) / n
    events, t0, c0 = 0, time.monotonic(), cpu_s(pid)
    while time.monotonic() - t0 < seconds:
        for key, _ in poll.select(0.1):
            events += key.fileobj.recv(1 << 20).count(b"data:")
    took, cpu = time.monotonic() - t0, cpu_s(pid) - c0
    per_event = f"{cpu / events * 1e6:.2f}" if events else ""
    print(f"{path},{n},{each:.0f},{events / took:.0f},{per_event}")


main()
