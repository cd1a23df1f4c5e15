"""Who may ask a server: keys and host names, without a socket."""

import pytest
from test_bad_requests import DRAW, KEY

from janus_kit.demos.guard import Guard, is_loopback, trusted


def test_the_key_is_compared_in_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    seen: list[tuple[int, int]] = []
    plain = hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        seen.append((len(a), len(b)))
        return plain(a, b)

    monkeypatch.setattr("janus_kit.demos.guard.hmac.compare_digest", compare)
    guard = Guard(lambda *_: None, api_key=KEY)  # type: ignore[arg-type,return-value]
    for key in (b"", b"s", b"sesame", b"x" * 999):
        scope = {
            "type": "http",
            "path": DRAW,
            "method": "POST",
            "headers": [(b"authorization", b"Bearer " + key)],
        }
        assert (guard._refusal(scope) is None) is (key == b"sesame")
    assert seen == [(32, 32)] * 4  # whatever the length of the guess


def test_hosts_are_ours_on_the_loopback_address_and_the_operators_elsewhere() -> None:
    assert "localhost" in trusted("127.0.0.1")
    assert trusted("0.0.0.0") == ()
    assert "me.example" in trusted("0.0.0.0", ["me.example"])
    names = ("localhost", "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "me.example")
    assert [is_loopback(host) for host in names] == [True] * 4 + [False] * 2


@pytest.mark.parametrize(
    ("origin", "own"),
    [
        (b"http://localhost:7860", True),
        (b"http://[::1]:7860", True),
        (b"http://evil.example", False),
        (b"http://localhost.evil.example", False),
        (b"null", False),
        (b"http://[", False),
        (b"http://[::1", False),
        (b"\xff\xfe", False),
    ],
)
def test_a_page_of_another_origin_may_not_post_whatever_it_calls_itself(
    origin: bytes, own: bool
) -> None:
    guard = Guard(lambda *_: None, hosts=trusted("127.0.0.1"))  # type: ignore[arg-type,return-value]
    headers = [(b"host", b"localhost:7860"), (b"origin", origin)]
    refusal = guard._refusal({"path": DRAW, "method": "POST", "headers": headers})
    assert (refusal is None) is own
    assert own or (refusal is not None and refusal[0] == 403)
