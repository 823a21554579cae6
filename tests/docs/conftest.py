import os
import subprocess
import sys

import pytest

from tests.docs.blocks import ROOT


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The site, built once as a release builds it, and what the build said."""
    site = tmp_path_factory.mktemp("docs") / "site"
    # The theme's own switch for its notice on the next major version of MkDocs.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    return done, site


@pytest.fixture(scope="session")
def site(built):
    done, folder = built
    if done.returncode:
        pytest.fail(f"the site was not built:\n{done.stderr[-3000:]}", pytrace=False)
    return folder
