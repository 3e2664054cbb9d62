#!/usr/bin/env python3
"""Carries TCP connections over QUIC: each becomes one QUIC connection with one bidirectional stream.

    quic_relay.py PORT CAFILE       prints "relay tcp://127.0.0.1:N" once it listens; QUIC goes to 127.0.0.1:PORT

So clients that know nothing of QUIC speak to a broker through aioquic, a stack that is not ours.
Owns: the way of the bytes. Does not own: what they say, which suites go this way (see run). Start reading at relay().
Invariant: an end is handed on as what it is: a half close, or a connection that is gone.
"""

import asyncio
import socket
import sys

from aioquic.asyncio.client import connect
from aioquic.quic.configuration import QuicConfiguration

CHUNK = 64 * 1024
ERROR_ABANDONED = 1


async def relay(port, cafile, tcp_reader, tcp_writer):
    tcp_writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    configuration = QuicConfiguration(alpn_protocols=["mqtt"], cafile=cafile, server_name="localhost")
    try:
        async with connect("127.0.0.1", port, configuration=configuration) as quic:
            reader, writer = await quic.create_stream()
            up = asyncio.create_task(to_quic(tcp_reader, writer, quic))
            await to_tcp(reader, tcp_writer)
            up.cancel()
    except ConnectionError as error:
        print(f"relay: {error!r}", file=sys.stderr, flush=True)
    finally:
        tcp_writer.close()


async def to_quic(tcp_reader, writer, quic):
    try:
        while data := await tcp_reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except ConnectionError:
        # The client is gone without a word, and so are we.
        quic.close(ERROR_ABANDONED)


async def to_tcp(reader, tcp_writer):
    try:
        while data := await reader.read(CHUNK):
            tcp_writer.write(data)
            await tcp_writer.drain()
        tcp_writer.write_eof()
    except (ConnectionError, OSError):
        pass


async def main():
    port, cafile = int(sys.argv[1]), sys.argv[2]
    server = await asyncio.start_server(lambda reader, writer: relay(port, cafile, reader, writer), "127.0.0.1", 0, backlog=512)
    print(f"relay tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
