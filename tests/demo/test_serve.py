"""From --web to a listening server, and to its end."""

from __future__ import annotations

import ipaddress
import json
import socket
import ssl
import subprocess
import urllib.request
from pathlib import Path

import pytest

from hrm_edge.demo.serve import Address, Server, bind, check_tls, own_address, parse_address
from hrm_edge.demo.web import Web
from hrm_edge.errors import UserError
from tests.demo.conftest import serving


@pytest.mark.parametrize(
    ("text", "address", "local"),
    [
        ("8000", Address("127.0.0.1", 8000), True),
        ("localhost:1", Address("localhost", 1), True),
        ("0.0.0.0:8000", Address("0.0.0.0", 8000), False),
        ("[::]:8000", Address("::", 8000), False),
        ("[::1]:8000", Address("::1", 8000), True),
    ],
)
def test_addresses(text, address, local):
    assert parse_address(text) == address
    assert address.is_local is local


def test_the_address_that_others_reach_this_machine_at(monkeypatch):
    found = own_address()
    assert found == socket.gethostname() or not ipaddress.ip_address(found).is_unspecified

    def no_route(self, address):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", no_route)
    assert own_address() == socket.gethostname()


@pytest.mark.parametrize("text", ["", "http", "70000", "host:", ":8000", "1.2.3.4:x", "-1"])
def test_no_addresses(text):
    with pytest.raises(UserError, match="no address to listen at"):
        parse_address(text)


def test_a_port_in_use_and_hosts_that_are_not_ours():
    with bind(Address("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port}: Address already in use") as caught:
            bind(Address("127.0.0.1", port))
        assert f"--web {port + 1}" in caught.value.hint
    with pytest.raises(UserError, match="unknown host"):
        bind(Address("no.such.host.invalid", 8000))
    with pytest.raises(UserError, match="cannot listen") as caught:
        bind(Address("0.0.0.1", 8000))  # of "this network": no machine has it
    assert "ip address" in caught.value.hint


def test_https(make, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    with pytest.raises(UserError, match="No such file") as caught:
        check_tls(cert, key)
    command = caught.value.hint.partition(": ")[2]  # the hint is a command that works
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    with serving(make(), tls=(cert, key)) as site:
        context = ssl.create_default_context(cafile=cert)
        context.check_hostname = False
        assert site.server.url.startswith("https://")
        with urllib.request.urlopen(site.server.url + "state", context=context, timeout=30) as answer:
            assert json.load(answer)["state"] == "waiting"
    Path(key).write_text("torn")
    with pytest.raises(UserError, match="--cert"):
        check_tls(cert, key)


def test_a_fault_of_the_loop_ends_the_server_and_reaches_the_user(make, monkeypatch):
    demo = make()

    def broken(stop):
        raise RuntimeError("broken")

    monkeypatch.setattr(demo, "run", broken)
    site = Web(demo, lambda data: data, {}, dict)
    with pytest.raises(RuntimeError, match="broken"):
        Server(demo, site, Address("127.0.0.1", 0)).run()
