"""Holds listening sockets as a service manager does, and runs a program with them: activator.py SOCKETS -- COMMAND

SOCKETS are ports of 127.0.0.1 and paths. SIGHUP restarts the program: SIGTERM, its end, the next one. SIGTERM ends
it."""
import os
import signal
import socket
import sys

cut = sys.argv.index("--")
held = []
for what in sys.argv[1:cut]:
    if what.isdigit():
        listener = socket.create_server(("127.0.0.1", int(what)), backlog=4096)
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(what)
        os.chmod(what, 0o600)
        listener.listen(64)
    held.append(listener)


SIGNALS = {signal.SIGHUP, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def start():
    pid = os.fork()
    if pid:
        print("started", pid, flush=True)
        return pid
    for place, listener in enumerate(held):
        # Away from where they go first, so that none is written over.
        os.dup2(listener.fileno(), 100 + place)
    for place in range(len(held)):
        os.dup2(100 + place, 3 + place, inheritable=True)
        os.close(100 + place)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["LISTEN_FDS"] = str(len(held))
    os.execv(sys.argv[cut + 1], sys.argv[cut + 1:])


def end(pid):
    os.kill(pid, signal.SIGTERM)
    _, status = os.waitpid(pid, 0)
    print("ended", os.waitstatus_to_exitcode(status), flush=True)


pid = start()
while signal.sigwait(SIGNALS) == signal.SIGHUP:
    end(pid)
    pid = start()
end(pid)
