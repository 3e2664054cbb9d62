"""A broker that a suite has for itself, in a folder of its own.

Owns: where it is, how it starts. Does not own: its configuration (the suite's), its end (see common.run).
Start reading at serve(). Invariant: a Peer that is not told otherwise goes to the broker that was started last.
"""

import os
import pathlib
import sys
import tempfile

import common

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import brokers  # noqa: E402  (it is one folder up)

PROGRAM = os.environ["INTEROP_PROGRAM"]


def folder(name):
    """For a suite of this name; it goes with common.run()."""
    return tempfile.TemporaryDirectory(prefix=f"vencejo-{name}-")


def serve(directory, *more):
    """Starts ours by the vencejo.toml in `directory`, where its state is, too, with `more` flags."""
    broker = brokers.Broker([PROGRAM, "serve", "-c", "vencejo.toml", "--data", "data", *more], directory)
    common.HOST, common.PORT = "127.0.0.1", broker.port()
    return broker
