"""A small OAuth server: client credentials in, signed tokens out, as a broker verifies them."""

import json
import threading
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

AUDIENCE = "kafka"
CLIENT_ID = "consumer"
CLIENT_SECRET = "a secret: with % and +"
_KID = "tests"


class TokenServer:
    """Gives tokens of `life_seconds` to whoever has the secret, and counts them."""

    def __init__(self) -> None:
        self._key = _key()
        self.life_seconds = 60.0
        self.issued = 0
        self.answer: tuple[int, bytes] | None = None  # in place of a token
        self.url = ""

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        """Serve on loopback until the block ends."""
        tokens = cls()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                status, body = tokens._answer(self.headers["Authorization"])
                self.send_response(status)
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        tokens.url = f"http://127.0.0.1:{server.server_port}/token"
        try:
            yield tokens
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def jwks(self) -> dict[str, object]:
        """Return the public key, as a broker reads it (RFC 7517)."""
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "kid": _KID, "alg": "RS256", "use": "sig"}
        return {"keys": [key | {"n": _number(numbers.n), "e": _number(numbers.e)}]}

    def token(self, life_seconds: float, subject: str = CLIENT_ID) -> str:
        """Return a signed token (RFC 7519)."""
        now = time.time()
        claims = {
            "sub": subject,
            "aud": AUDIENCE,
            "iat": int(now),
            "exp": int(now + life_seconds),
            "scope": "kafka",
        }
        head = _part({"alg": "RS256", "kid": _KID, "typ": "JWT"})
        signed = f"{head}.{_part(claims)}"
        mac = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_base64(mac)}"

    def _answer(self, authorization: str) -> tuple[int, bytes]:
        if self.answer is not None:
            return self.answer
        given = b64decode(authorization.removeprefix("Basic ")).decode()
        if given != f"{CLIENT_ID}:a+secret%3A+with+%25+and+%2B":
            return 401, b"{}"
        self.issued += 1
        answer = {"access_token": self.token(self.life_seconds), "expires_in": self.life_seconds}
        return 200, json.dumps(answer).encode()


def _part(value: dict[str, object]) -> str:
    return _base64(json.dumps(value).encode())


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int) -> str:
    return _base64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


@cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)
