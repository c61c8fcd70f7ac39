"""aws-cli without the half second that it takes to load: a process that has its modules forks for each command.

What runs is aws-cli's own `main`, with the arguments, environment, folder and files of the command. As a program this file is that
process: it takes commands from the socket that it is given.
"""

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

MESSAGE_BYTES = 1 << 20


class Preloaded:
    """The process, started by the first command."""

    def __init__(self):
        self.lock = threading.Lock()
        self.address = None

    def started(self):
        with self.lock:
            if self.address is None:
                folder = tempfile.TemporaryDirectory(prefix="cosgate-aws-")
                address = f"{folder.name}/socket"
                environment = {"LANG": "C.UTF-8", "PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": "1"}
                server = subprocess.Popen([sys.executable, __file__, address], env=environment, stdout=subprocess.PIPE)
                atexit.register(folder.cleanup)
                atexit.register(server.kill)
                server.stdout.readline()  # it listens, or has ended: then the first command says so
                self.address = address
            return self.address

    def run(self, argv, env, stdin, seconds):
        """As `subprocess.run` that captures both outputs."""
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
            files[0].write(stdin)
            files[0].seek(0)
            connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            connection.settimeout(seconds)
            connection.connect(self.started())
            command = {"argv": argv, "env": env, "folder": str(Path.cwd())}
            socket.send_fds(connection, [json.dumps(command).encode()], [file.fileno() for file in files])
            child = int(connection.recv(MESSAGE_BYTES))
            try:
                ended = connection.recv(MESSAGE_BYTES)
            except TimeoutError:
                os.kill(child, signal.SIGKILL)
                raise subprocess.TimeoutExpired(argv, seconds) from None
            outputs = []
            for file in files[1:]:
                file.seek(0)
                outputs.append(file.read())
            # One that was killed has not said how it ended.
            return subprocess.CompletedProcess(argv, int(ended or -signal.SIGKILL), *outputs)


AWS = Preloaded()


def load():
    import awscli.clidriver
    import awscli.customizations.s3.subcommands
    import awscli.handlers
    import botocore.httpsession
    import s3transfer.manager  # noqa: F401

    return awscli.clidriver.main


def carry_out(connection, command, files, main, own):
    """In a process of its own: the command, from its first line to its exit."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection.send(str(os.getpid()).encode())
    for standard, file in enumerate(files):
        os.dup2(file, standard)
        os.close(file)
    os.environ.clear()
    os.environ.update({**own, **command["env"]})
    os.chdir(command["folder"])
    sys.argv = command["argv"]
    try:
        code = main() or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # as Python itself ends a program
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send(str(code).encode())


def serve(address):
    before = dict(os.environ)
    main = load()
    own = {name: value for name, value in os.environ.items() if before.get(name) != value}  # where aws-cli's data is
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            message, files, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, 3)
            if os.fork() == 0:
                listener.close()
                try:
                    carry_out(connection, json.loads(message), files, main, own)
                finally:
                    os._exit(0)
            connection.close()
            for file in files:
                os.close(file)


if __name__ == "__main__":
    serve(sys.argv[1])
