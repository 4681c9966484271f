"""Times the same cells in what people would otherwise run: Jupyter Kernel Gateway (HTTP and
websocket) and ipykernel over ZMQ (`jupyter_client`).

One JSON request per line on standard input, one JSON answer per line on standard output:
    {"peer": "gateway" | "zmq", "what": "warm" | "new", "code": "...", "runs": 3}  ->  [milliseconds, ...]

A cell counts as answered when both its reply and the `idle` that follows its last output are here.
Connections are kept, Nagle's algorithm is off.
"""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
import uuid

import websocket
import zmq
from jupyter_client.manager import KernelManager

PATIENCE_SECONDS = 60


class Zmq:
    """ipykernel as `jupyter_client` starts and drives it."""

    def __init__(self):
        self.warm_kernel = self.start()

    def start(self):
        manager = KernelManager()
        manager.start_kernel()
        client = manager.client()
        client.start_channels(stdin=False, hb=False)
        client.wait_for_ready(timeout=PATIENCE_SECONDS)
        return manager, client

    def run(self, kernel, code):
        _, client = kernel
        shell, iopub = client.shell_channel.socket, client.iopub_channel.socket
        poller = zmq.Poller()
        poller.register(shell, zmq.POLLIN)
        poller.register(iopub, zmq.POLLIN)
        request = client.execute(code)
        replied = idle = False
        while not (replied and idle):
            ready = dict(poller.poll(PATIENCE_SECONDS * 1000))
            if not ready:
                raise TimeoutError(code)
            if shell in ready:
                reply = client.get_shell_msg(timeout=0)
                if reply["parent_header"].get("msg_id") == request:
                    expect_ok(reply)
                    replied = True
            if iopub in ready:
                idle = idle or ends(client.get_iopub_msg(timeout=0), request)

    def stop(self, kernel):
        manager, client = kernel
        client.stop_channels()
        manager.shutdown_kernel(now=True)

    def close(self):
        self.stop(self.warm_kernel)


class Gateway:
    """A Jupyter Kernel Gateway on a free loopback port."""

    def __init__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", "kernel_gateway", "--KernelGatewayApp.ip=127.0.0.1"]
        command += [f"--KernelGatewayApp.port={self.port}", "--KernelGatewayApp.port_retries=0"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.http = self.connect()
        self.warm_kernel = self.start()
        self.run(self.warm_kernel, "1+1")

    def connect(self):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
            try:
                connection.connect()
            except ConnectionRefusedError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connection

    def request(self, method, path):
        self.http.request(method, path)
        response = self.http.getresponse()
        body = response.read()
        if response.status >= 300:
            raise RuntimeError(f"{method} {path}: {response.status}")
        return body

    def start(self):
        kernel = json.loads(self.request("POST", "/api/kernels"))["id"]
        channel = websocket.create_connection(
            f"ws://127.0.0.1:{self.port}/api/kernels/{kernel}/channels",
            timeout=PATIENCE_SECONDS,
            sockopt=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        return kernel, channel

    def run(self, kernel, code):
        _, channel = kernel
        request = uuid.uuid4().hex
        header = {"msg_id": request, "msg_type": "execute_request", "session": "bench", "username": "", "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        channel.send(json.dumps(message))
        replied = idle = False
        while not (replied and idle):
            message = json.loads(channel.recv())
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["channel"] == "shell":
                expect_ok(message)
                replied = True
            else:
                idle = idle or ends(message, request)

    def stop(self, kernel):
        identifier, channel = kernel
        channel.close()
        self.request("DELETE", f"/api/kernels/{identifier}")

    def close(self):
        self.stop(self.warm_kernel)
        self.process.terminate()
        self.process.wait()


def expect_ok(reply):
    if reply["content"]["status"] != "ok":
        raise RuntimeError(f"the cell failed: {reply['content']}")


def ends(message, request):
    """Whether this is the last message about a request."""
    mine = message["parent_header"].get("msg_id") == request
    return mine and message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"


def warm(peer, code, runs):
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        peer.run(peer.warm_kernel, code)
        times.append((time.perf_counter() - started) * 1e3)
    return times


def new(peer, code, runs):
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        kernel = peer.start()
        peer.run(kernel, code)
        times.append((time.perf_counter() - started) * 1e3)
        peer.stop(kernel)
    return times


def main():
    # The same number of BLAS threads on both sides.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    peers = {}
    try:
        peers["zmq"] = Zmq()
        peers["gateway"] = Gateway()
        for line in sys.stdin:
            request = json.loads(line)
            measure = {"warm": warm, "new": new}[request["what"]]
            print(json.dumps(measure(peers[request["peer"]], request["code"], request["runs"])), flush=True)
    finally:
        for peer in peers.values():
            peer.close()


if __name__ == "__main__":
    main()
