"""However an answer of a server is cut into parts, the same is read; what can be read in two ways is refused."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftsim.gateway.framing import MOST_HEAD, Body, Chunked, FramingError, Sized, Unbounded, body, head

TRICKS = [b"\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"\r"]  # content that looks like its frame
CONTENT = st.one_of(st.binary(min_size=1, max_size=40), st.sampled_from(TRICKS))
SIZES = st.sampled_from([b"%x", b"%X", b"00%x", b"%x;name=value", b"%x ;a"])
LAST = st.sampled_from([b"0\r\n\r\n", b"000\r\n\r\n", b"0;x\r\n\r\n", b"0\r\nA: b\r\nC: d\r\n\r\n"])
CUTS = st.lists(st.integers(0, 400), max_size=8)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(min(place, len(data)) for place in cuts), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(places) if begin < end]


def read(reader: Body, parts: list[bytes]) -> tuple[bytes, bool, bytes]:
    """What is read of ``parts``; what comes after the end is for nobody."""
    found = b""
    for place, part in enumerate(parts):
        found += reader.feed(part)
        if reader.is_over:
            return found, True, reader.beyond + b"".join(parts[place + 1 :])
    return found, False, b""


@given(st.lists(st.tuples(CONTENT, SIZES), max_size=6), LAST, st.sampled_from([b"", b"HTTP/1.1 200 OK"]), CUTS)
def test_the_cuts_of_a_body_in_chunks_change_nothing(
    chunks: list[tuple[bytes, bytes]], last: bytes, beyond: bytes, cuts: list[int]
) -> None:
    written = b"".join(size % len(content) + b"\r\n" + content + b"\r\n" for content, size in chunks) + last + beyond
    content = b"".join(content for content, _ in chunks)
    assert read(Chunked(), cut(written, cuts)) == (content, True, beyond)
    reader = Chunked()
    found = read(reader, cut(written[: len(written) - len(beyond) - 1], cuts))
    assert found == (content, False, b"")
    with pytest.raises(FramingError, match="broke off"):
        reader.end()


@pytest.mark.parametrize(
    "written",
    [
        b"g\r\nabc\r\n", b"-1\r\n", b"+3\r\nabc\r\n", b"0x3\r\nabc\r\n", b"1_0\r\n0123456789abcdef\r\n",
        b" 3\r\nabc\r\n", b"3\r\nabcd\r\n", b"3\r\nabcXY0\r\n\r\n", b"3\r\nabc\r\r\n", b"3\r\nabc3\r\nabc\r\n", b"\r\n",
        b"3\nabc\r\n", b"1" * 20 + b"\r\n", b"3;" + b"x" * 2_000, b"1" * 2_000, b"0\r\nA: " + b"b" * MOST_HEAD,
    ],
)  # fmt: skip
def test_a_chunk_that_is_none_is_refused_however_it_is_cut(written: bytes) -> None:
    for cuts in ([], list(range(3_000))):
        with pytest.raises(FramingError):
            read(Chunked(), cut(written, cuts))


@given(st.binary(max_size=60), st.integers(0, 60), CUTS)
def test_the_cuts_of_a_body_of_a_known_size_change_nothing(data: bytes, size: int, cuts: list[int]) -> None:
    reader = Sized(size)
    if not size:
        assert reader.is_over
        return
    found, is_over, beyond = read(reader, cut(data, cuts))
    assert (found, is_over, beyond) == (data[:size], len(data) >= size, data[size:])
    if not is_over:
        with pytest.raises(FramingError, match=re.escape(f"{size - len(data)} bytes")):
            reader.end()


def test_a_body_of_no_size_ends_with_its_connection() -> None:
    reader = Unbounded()
    assert read(reader, [b"a", b"b"]) == (b"ab", False, b"")
    reader.end()
    assert reader.is_over


@pytest.mark.parametrize(
    "written",
    [
        b"HTTP/1.1 20 OK", b"HTTP/2 200 OK", b"HTTP/1.1 099 OK", b"ICY 200 OK", b" HTTP/1.1 200 OK", b"",
        b"HTTP/1.1 200 OK\r\nA : b", b"HTTP/1.1 200 OK\r\n: b", b"HTTP/1.1 200 OK\r\nA: b\r\n c",
        b"HTTP/1.1 200 OK\r\nA", b"HTTP/1.1 200 OK\nA: b", b"HTTP/1.1 200 OK\r\nA: b\rC: d",
        b"HTTP/1.1 200 OK\r\nA: b\0", b"HTTP/1.1 200 O\0K",
    ],
)  # fmt: skip
def test_a_head_that_is_none_is_refused(written: bytes) -> None:
    with pytest.raises(FramingError):
        head(written)


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: +5", b"Content-Length: 5, 5", b"Content-Length: -1", b"Content-Length: 0x5",
        b"Content-Length:", b"Content-Length: \xd9\xa5", b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked, chunked",
        b"Content-Length: " + b"9" * 5_000,
    ],
)  # fmt: skip
def test_a_body_whose_end_can_be_read_in_two_ways_is_refused(lines: bytes) -> None:
    with pytest.raises(FramingError):
        body(head(b"HTTP/1.1 200 OK\r\n" + lines), "POST")


@pytest.mark.parametrize(
    ("written", "method", "kind", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked", "POST", Chunked, True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\nContent-Length: 7", "POST", Sized, True),
        (b"HTTP/1.1 200", "GET", Unbounded, True),
        (b"HTTP/1.1 200 \r\nContent-Length: 7", "HEAD", Sized, True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7", "GET", Sized, True),
        (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked", "POST", Sized, True),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive, Close\r\nContent-Length: 7", "POST", Sized, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 7", "POST", Sized, False),
    ],
)
def test_the_head_tells_how_the_body_ends(written: bytes, method: str, kind: type[Body], keeps: bool) -> None:
    found = head(written)
    reader = body(found, method)
    assert isinstance(reader, kind)
    assert found.keeps is keeps
    assert reader.is_over is (method == "HEAD" or found.status in (204, 304))


def test_a_head_is_told_as_it_was_written() -> None:
    found = head("HTTP/1.1 404 Not  Found\r\nX-A: b \t\r\nx-a:\tc\r\nContent-Type: Text/Html ; charset=é".encode())
    assert (found.status, found.reason, found.content_type) == (404, "Not  Found", "text/html")
    assert found.headers.getall("X-A") == ["b", "c"]
    assert found.content_length is None
