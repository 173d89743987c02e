"""Who takes what a rival of tools/bench sends, so that it has somebody to send to."""

import contextlib
import socket
import threading


class Sink:
    """A TCP server on a free port that takes what comes; for the rival that wants one."""

    def __enter__(self):
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.close()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                with connection:
                    while connection.recv(1 << 18):
                        pass
