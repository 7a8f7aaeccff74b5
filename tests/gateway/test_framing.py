"""However an answer of a server is cut into parts, the same is read; what can be read in two ways is refused."""

from __future__ import annotations

import gc
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftsim.gateway.framing import MOST_HEAD, Answer, FramingError, Head

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TRICKS = [b"\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"\r"]  # content that looks like its frame
CONTENT = st.one_of(st.binary(min_size=1, max_size=40), st.sampled_from(TRICKS))
SIZES = st.sampled_from([b"%x", b"%X", b"00%x", b"%x;name=value", b'%x;a="b;c"'])
LAST = st.sampled_from([b"0\r\n\r\n", b"000\r\n\r\n", b"0;x\r\n\r\n", b"0\r\nA: b\r\nContent-Type: d\r\n\r\n"])
BEYOND = st.sampled_from([b"", b"H", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother", b"x", b"0\r\n\r\n"])
CUTS = st.lists(st.integers(0, 400), max_size=8)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(min(place, len(data)) for place in cuts), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(places) if begin < end]


def read(answer: Answer, parts: list[bytes]) -> tuple[bytes, bool, bool]:
    """What is read of ``parts``, whether that is all of the answer, and whether something comes after its end."""
    found = b""
    for place, part in enumerate(parts):
        found += answer.feed(part)
        if answer.is_over:
            return found, True, answer.beyond or place + 1 < len(parts)
    return found, False, False


def head_of(written: bytes, method: str = "POST") -> Head:
    """The head that ``written`` is, without the empty line at its end."""
    answer = Answer(method)
    answer.feed(written + b"\r\n\r\n")
    assert answer.head is not None
    return answer.head


@given(st.lists(st.tuples(CONTENT, SIZES), max_size=6), LAST, BEYOND, CUTS)
def test_the_cuts_of_a_body_in_chunks_change_nothing(
    chunks: list[tuple[bytes, bytes]], last: bytes, beyond: bytes, cuts: list[int]
) -> None:
    written = CHUNKED + b"".join(size % len(content) + b"\r\n" + content + b"\r\n" for content, size in chunks) + last
    content = b"".join(content for content, _ in chunks)
    answer = Answer("POST")
    assert read(answer, cut(written + beyond, cuts)) == (content, True, bool(beyond))
    assert answer.head is not None
    assert list(answer.head.headers) == ["Transfer-Encoding"]
    answer = Answer("POST")
    assert read(answer, cut(written[:-1], cuts)) == (content, False, False)
    with pytest.raises(FramingError, match="before the end"):
        answer.end()


@pytest.mark.parametrize(
    "written",
    [
        b"g\r\nabc\r\n", b"-1\r\n", b"+3\r\nabc\r\n", b"0x3\r\nabc\r\n", b"1_0\r\n0123456789abcdef\r\n",
        b" 3\r\nabc\r\n", b"3\r\nabcd\r\n", b"3\r\nabcXY0\r\n\r\n", b"3\r\nabc\r\r\n", b"3\r\nabc3\r\nabc\r\n", b"\r\n",
        b"3\nabc\r\n", b"1" * 20 + b"\r\n", b"3 ;a\r\nabc\r\n", b"3;a\nb\r\nabc\r\n", b"3;" + b"x" * MOST_HEAD,
        b"1" * 2_000, b"0\r\nA: " + b"b" * MOST_HEAD, b"0\r\nA: b\nC: d\r\n\r\n", b"0\r\n\n",
        b"0\r\nContent-Length: 3\r\n\r\n",
    ],
)  # fmt: skip
def test_a_chunk_that_is_none_is_refused_however_it_is_cut(written: bytes) -> None:
    for cuts in ([], list(range(3_000))):
        with pytest.raises(FramingError):
            read(Answer("POST"), cut(CHUNKED + written, cuts))


@given(st.binary(max_size=60), st.integers(0, 60), CUTS)
def test_the_cuts_of_a_body_of_a_known_size_change_nothing(data: bytes, size: int, cuts: list[int]) -> None:
    answer = Answer("POST")
    data = data[:size] + data[size:].lstrip(b"\r\n")  # which are passed over
    written = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + data
    assert read(answer, cut(written, cuts)) == (data[:size], len(data) >= size, len(data) > size)
    if len(data) < size:
        with pytest.raises(FramingError, match="before the end"):
            answer.end()


def test_a_body_of_no_size_ends_with_its_connection() -> None:
    answer = Answer("POST")
    assert read(answer, [b"HTTP/1.1 200 OK\r\n\r\n", b"a", b"b"]) == (b"ab", False, False)
    answer.end()
    assert answer.is_over
    answer = Answer("POST")
    answer.feed(b"HTTP/1.1 200 OK\r\n")
    with pytest.raises(FramingError, match="before the end"):
        answer.end()


@pytest.mark.parametrize(
    "written",
    [
        b"HTTP/1.1 20 OK", b"HTTP/2 200 OK", b"HTTP/2.0 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1.1 099 OK", b"ICY 200 OK",
        b"HTTP/1.1 101 Switching", b"HTTP/1.1 104 Early\r\nContent-Length: 5", b" HTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK\r\nA : b", b"HTTP/1.1 200 OK\r\n: b", b"HTTP/1.1 200 OK\r\nA: b\r\n c",
        b"HTTP/1.1 200 OK\r\nA", b"HTTP/1.1 200 OK\nA: b", b"HTTP/1.1 200 OK\r\nA: b\rC: d",
        b"HTTP/1.1 200 OK\r\nA: b\0", b"HTTP/1.1 200 O\0K", b"HTTP/1.1 200 OK\r\nA: " + b"b" * MOST_HEAD,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 6_000,
    ],
)  # fmt: skip
def test_a_head_that_is_none_is_refused(written: bytes) -> None:
    for parts in ([written + b"\r\n\r\n"], cut(written + b"\r\n\r\n", list(range(0, 200_000, 7)))):
        with pytest.raises(FramingError):
            read(Answer("POST"), parts)


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Content-Length: 5\r\nContent-Length: 6", b"Content-Length: 5\r\nA: b\r\nContent-Length: 5",
        b"Content-Length: +5", b"Content-Length: 5, 5", b"Content-Length: -1", b"Content-Length: 0x5",
        b"Content-Length:", b"Content-Length: \xd9\xa5", b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: xchunked", b"Transfer-Encoding: gzip", b"Transfer-Encoding:",
        b"Transfer-Encoding: chunked \t", b"Transfer-Encoding: \xc2\xa0chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked, chunked",
        b"Content-Length: " + b"9" * 5_000,
    ],
)  # fmt: skip
def test_a_body_whose_end_can_be_read_in_two_ways_is_refused(lines: bytes) -> None:
    with pytest.raises(FramingError):
        head_of(b"HTTP/1.1 200 OK\r\n" + lines)


@pytest.mark.parametrize(
    ("written", "method", "ends", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked", "POST", "later", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 7", "POST", "later", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0", "POST", "now", True),
        (b"HTTP/1.1 200", "GET", "with its connection", False),
        (b"HTTP/1.1 200 \r\nContent-Length: 7", "HEAD", "now", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", "HEAD", "now", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7", "GET", "now", True),
        (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked", "GET", "now", True),
        (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked", "POST", "now", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content", "POST", "now", True),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive, Close\r\nContent-Length: 7", "POST", "later", False),
        (b"HTTP/1.1 200 OK\r\nConnection: a\r\nConnection: close \r\nContent-Length: 7", "POST", "later", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 7", "POST", "later", False),
    ],
)
def test_the_head_tells_how_the_body_ends(written: bytes, method: str, ends: str, keeps: bool) -> None:
    answer = Answer(method)
    answer.feed(written + b"\r\n\r\n")
    assert answer.head is not None
    assert answer.head.keeps is keeps
    assert answer.is_over is (ends == "now")
    if ends == "later":
        with pytest.raises(FramingError, match="before the end"):
            answer.end()
    else:
        answer.end()


def test_what_follows_the_head_of_a_bodiless_answer_is_no_content() -> None:
    """Nothing tells whether something did: the connection is not used again."""
    for beyond in (b"", b"hello", CHUNKED):
        answer = Answer("HEAD")
        assert answer.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + beyond) == b""
        assert answer.is_over
        assert answer.beyond


def test_ends_of_lines_around_an_answer_are_nothing() -> None:
    for whole in (CHUNKED + b"2\r\nhi\r\n0\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"):
        assert read(Answer("POST"), [b"\r\n\n", whole]) == (b"hi", True, False)
        assert read(Answer("POST"), [whole + b"\r\n\r\n"]) == (b"hi", True, False)
        assert read(Answer("POST"), [whole + b"\r\n\r\nx"]) == (b"hi", True, True)
    with pytest.raises(FramingError):
        Answer("POST").feed(b"\r\n" * MOST_HEAD)


def test_a_head_is_told_as_it_was_written() -> None:
    written = "HTTP/1.1 404 Not  Found\r\nX-A: b \t\r\nx-a:\tc\r\nContent-Type: Text/Html ; charset=é".encode()
    for parts in ([written], cut(written, list(range(400)))):
        answer = Answer("GET")
        read(answer, [b"HTTP/1.1 103 Early\r\nX-A: no\r\n\r\n", *parts, b"\r\n\r\n"])
        found = answer.head
        assert found is not None
        assert (found.status, found.reason, found.content_type) == (404, "Not  Found", "text/html")
        assert found.headers.getall("X-A") == ["b", "c"]
        assert found.content_length is None


@pytest.mark.parametrize("written", [CHUNKED + b"0\r\n\r\n", CHUNKED])
def test_an_answer_that_is_over_or_given_up_goes_without_a_collection(written: bytes) -> None:
    gc.collect()
    gc.disable()
    try:
        answer = Answer("POST")
        answer.feed(written)
        if not answer.is_over:
            answer.close()
        del answer
        assert not gc.collect()
    finally:
        gc.enable()
