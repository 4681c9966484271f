"""moto's server, answering one request at a time.

moto 5.2.1 looks whether a key exists and writes it in two steps, so that of several `PUT`s of one key with
`If-None-Match: *` more than one may succeed. Real stores do not do that, and Hearth refuses a store that does.

Takes the arguments of `moto_server`. Also a module, for serve.py.
"""

import io
import sys
import threading

import moto.moto_server.threaded_moto_server
import moto.server


class OneAtATime:
    """A WSGI application that never works on two requests at once."""

    def __init__(self, application):
        self.application = application
        self.lock = threading.Lock()

    def __call__(self, environ, start_response):
        # Whoever sends or reads slowly holds nobody up.
        length = environ.get("CONTENT_LENGTH")
        body = environ["wsgi.input"]
        body = body.read(int(length)) if length else read_to_end(environ, body)
        environ["wsgi.input"] = io.BytesIO(body)
        with self.lock:
            answer = self.application(environ, start_response)
            try:
                return list(answer)
            finally:
                if hasattr(answer, "close"):
                    answer.close()


def read_to_end(environ, body):
    return body.read() if environ.get("wsgi.input_terminated") else b""


def install():
    """Has servers that start from now on work so."""
    for module in (moto.server, moto.moto_server.threaded_moto_server):
        application = module.DomainDispatcherApplication
        module.DomainDispatcherApplication = lambda create, make=application: OneAtATime(make(create))


if __name__ == "__main__":
    install()
    sys.exit(moto.server.main())
