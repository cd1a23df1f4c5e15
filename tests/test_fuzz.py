"""The server, fuzzed by its own OpenAPI document."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Served, served

from janus_kit import JanusPipeline
from janus_kit.demos.server import build_server

schemathesis = pytest.importorskip("schemathesis")

pytestmark = pytest.mark.slow

EXAMPLES = 60  # requests of each kind for each route


@pytest.fixture(scope="module")
def server(hf_folder: Path) -> Iterator[Served]:
    with served(build_server(JanusPipeline.from_pretrained(hf_folder))) as server:
        yield server


def test_no_request_that_the_document_allows_or_forbids_gives_a_500(
    server: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import subprocess
    import sys

    checks = "not_a_server_error,status_code_conformance,content_type_conformance"
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            f"{server.url}/openapi.json",
            "--checks",
            f"{checks},response_schema_conformance",
            "--mode",
            "all",
            "--max-examples",
            str(EXAMPLES),
            "--seed",
            "7",
            "--phases",
            "examples,coverage,fuzzing",
            "--suppress-health-check",
            "all",
            "--no-color",
            "--request-timeout",
            "120",  # of a machine with other work
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
    server.wait_until_idle(60)
    assert "a job failed" not in caplog.text  # what was refused was refused with a sentence
