"""Take the network away from this Python process: only addresses of this computer are left.

The folder of this file is put on PYTHONPATH by conftest.py, so every Python that a test starts reads it too: the
kernels that run the notebooks, JupyterLab, the command line, the ranks of torchrun. What is refused fails as it
would on a computer without a network, so that the tests see what a learner on a train sees.
"""

import errno
import ipaddress
import socket
import sys


def _is_local(host: object) -> bool:
    if isinstance(host, (bytes, bytearray)):
        host = host.decode(errors="replace")
    if host is None or host in ("", "localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _host_asked_for(event: str, args: tuple) -> object:
    """The host that an audited call of the socket module wants to reach or look up; None for a local one."""
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = args[1]
        return address[0] if isinstance(address, tuple) and address else None
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        return args[0]
    return None


def _refuse(event: str, args: tuple) -> None:
    if event.startswith("socket.") and not _is_local(host := _host_asked_for(event, args)):
        raise OSError(errno.ENETUNREACH, f"the tests have no network, and {event} asked for {host}")


sys.addaudithook(_refuse)
