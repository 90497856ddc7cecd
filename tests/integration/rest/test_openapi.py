"""The description of the REST interface is valid, and the server does what it says.

schemathesis makes requests of the description, well-formed and not, and holds every answer against
it: no 5xx, no status, media type or body that is not described, nothing malformed that is accepted.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from support.api_client import Api
from support.rest import Keys
from support.server import ServerProcess

# Not held: that a request which the description permits is accepted. Passwords of more than 72
# bytes, taken addresses, rooms that are not there are refused for what no schema can say.
EXCLUDED = "positive_data_acceptance"
CASES = 40


async def test_the_description_is_valid(api: Api) -> None:
    answer = await api.call("GET", "/openapi.json")
    assert answer.status == 200
    OpenAPIV31SpecValidator(answer.body).validate()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("who", ["nobody", "owner", "admin"])
def test_what_the_server_answers_is_described(
    server: ServerProcess, keys: Keys, who: str, tmp_path: Path
) -> None:
    token = getattr(keys, who, None)
    # Names that a path has, so that more is reached than their refusal; the owner's room closes
    # somewhere in between.
    (tmp_path / "schemathesis.toml").write_text(f'[parameters]\n"path.room" = "{keys.room}"\n')
    authorization = ["--header", f"Authorization: Bearer {token}"] if token else []
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
            *("--exclude-checks", EXCLUDED),
            *("--max-examples", str(CASES), "--phases", "examples,coverage,fuzzing"),
            *("--seed", "1", "--no-color", "--continue-on-failure", "--warnings", "off"),
            *authorization,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
