"""The house rules that a machine can hold: arrows, purity, size, and nothing that weakens."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from edge.config import Config

ROOT = Path(__file__).parents[1]
FLOORS = ("drivers", "edge", "enroll", "hil")  # each may import those before it
LINES_MAX = 400
PURE = ["terms", "policy", "roster", "door", "gallery", "tracks", "seal", "envelope", "wire"]
PURE += ["ahead", "oplog"]
MAY_LEAN_ON = {*PURE, "trust"}  # trust has no I/O of its own: it hands papers to a drawer

# What a pure module may name at all: no clock, thread, socket, file, process, logger or dice.
PURE_IMPORTS = {
    *["__future__", "collections", "collections.abc", "dataclasses", "datetime", "enum"],
    *["hashlib", "hmac", "itertools", "math", "os", "struct", "typing"],
    *["cbor2", "numpy", "numpy.typing", "pydantic"],
}
PURE_CALLS_NEVER = {"open", "print", "input", "exec", "eval", "__import__"}
CLOCK_ATTRIBUTES = {"now", "utcnow", "today", "localtime", "gmtime", "monotonic", "perf_counter"}


@cache
def tracked() -> tuple[Path, ...]:
    """Files under version control that are still there; of an unpacked archive, its sources."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        names = listed.stdout.rstrip("\0").split("\0")
    else:
        names = [
            str(p.relative_to(ROOT)) for f in (*FLOORS, "tests") for p in (ROOT / f).rglob("*.py")
        ]
    return tuple(Path(name) for name in names if (ROOT / name).is_file())


def sources(*floors: str) -> list[Path]:
    found = [p for p in tracked() if p.suffix == ".py" and p.parts[0] in floors]
    assert found, f"no sources in {floors}: a test of nothing"
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text("utf-8"), str(path))


def imports(path: Path) -> Iterator[str]:
    """Dotted names, those inside functions too. `from edge import wire` is edge.wire."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            module = node.module or ""
            yield module
            if module in FLOORS:
                yield from (f"{module}.{alias.name}" for alias in node.names)


# --- arrows ---


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_point_down_only(floor: str) -> None:
    above = FLOORS[FLOORS.index(floor) + 1 :]
    up = [
        f"{path} imports {name}"
        for path in sources(floor)
        for name in imports(path)
        if name.split(".")[0] in (*above, "tests")
    ]
    assert not up


@pytest.mark.parametrize("floor", ["drivers", "edge"])
def test_nothing_on_the_box_is_imported_by_name_at_run_time(floor: str) -> None:
    """Or the arrows would prove nothing."""
    for path in sources(floor):
        for node in ast.walk(tree(path)):
            named = getattr(node, "id", getattr(node, "attr", ""))
            assert named not in ("import_module", "__import__", "entry_points"), path


def test_the_installed_edge_command_loads_nothing_of_the_office_or_the_rig() -> None:
    code = "import sys, edge.cli, edge.daemon; print(*{n.split('.')[0] for n in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "edge" in loaded and not loaded & {"hil", "enroll", "tests", "pytest", "amqtt"}


# --- purity ---


@pytest.mark.parametrize("name", [*PURE, "trust"])
def test_a_pure_module_imports_no_clock_thread_socket_or_file(name: str) -> None:
    for imported in imports(Path(f"edge/{name}.py")):
        head, _, rest = imported.partition(".")
        if head == "edge":
            assert not rest or rest.split(".")[0] in MAY_LEAN_ON, f"{name} leans on edge.{rest}"
        elif head != "cryptography":
            assert imported in PURE_IMPORTS, f"{name} imports {imported}"


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_reads_no_clock_and_no_file(name: str) -> None:
    for node in ast.walk(tree(Path(f"edge/{name}.py"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in PURE_CALLS_NEVER, f"{name}:{node.lineno}"
        if isinstance(node, ast.Attribute):
            assert node.attr not in CLOCK_ATTRIBUTES, f"{name}:{node.lineno}"
            of = node.value.id if isinstance(node.value, ast.Name) else ""
            assert of != "os" or node.attr == "urandom", f"{name}:{node.lineno}"


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_says_so_in_its_first_lines(name: str) -> None:
    assert "Pure" in (ast.get_docstring(tree(Path(f"edge/{name}.py"))) or "")


def test_a_clock_is_read_in_one_place_of_the_daemon() -> None:
    """A command (cli*.py) may ask the wall clock; what the daemon runs is handed the time."""
    reading = {
        str(path)
        for path in sources("drivers", "edge")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (
            (node.value.id == "time" and node.attr != "sleep")
            or (node.value.id in ("datetime", "date") and node.attr in ("now", "utcnow", "today"))
        )
    }
    assert {path for path in reading if not path.startswith("edge/cli")} == {"edge/clock.py"}


# --- size and laws ---


@pytest.mark.parametrize("floor", FLOORS)
def test_no_file_is_longer_than_the_wall(floor: str) -> None:
    long = {
        str(path): lines
        for path in sources(floor)
        if (lines := len((ROOT / path).read_text("utf-8").splitlines())) > LINES_MAX
    }
    assert not long


@pytest.mark.parametrize("floor", FLOORS)
def test_the_first_lines_of_a_file_say_what_it_is(floor: str) -> None:
    silent = [
        str(path)
        for path in sources(floor)
        if path.name != "__main__.py" and tree(path).body and not ast.get_docstring(tree(path))
    ]
    assert not silent


# --- nothing weakens ---

WEAKER = re.compile(
    r"debug_?open|insecure|skip_?(verif|check|auth|live|tls)|no_?(verify|auth|check|tls)\b"
    r"|bypass|back_?door|master_?key|allow_any|open_sesame|unsafe|(?<!\.)\bverify=False"
    r"|check_hostname\s*=\s*False|CERT_NONE|CERT_OPTIONAL|_unverified_context"
    r"|MENJIN_|\bpytest\b|\bunittest\b|hypothesis|\bTESTING\b|test_?mode|dry_?run",
    re.IGNORECASE,
)
METRIC = re.compile(r'"menjin_[a-z_]+"')  # the names of metrics begin so
# Where the box looks into its environment: systemd's folder of credentials and its socket.
ENVIRONMENT = {"CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET"}
SET_FOR_OTHERS = {"ORT_DISABLE_TELEMETRY", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"}


@pytest.mark.parametrize("floor", ["drivers", "edge"])
def test_no_word_of_a_weaker_way_stands_on_the_box(floor: str) -> None:
    found = [
        f"{path}:{number}: {line.strip()}"
        for path in sources(floor)
        for number, line in enumerate((ROOT / path).read_text("utf-8").splitlines(), 1)
        if WEAKER.search(METRIC.sub("", line))
    ]
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "def debug_open(door):",
        "insecure_skip: bool = False",
        'os.environ.get("MENJIN_TEST_OPEN")',
        "context.check_hostname = False",
        "ssl.CERT_NONE",
        "decode(raw, verify=False)",
        "if skip_liveness:",
        "import pytest",
    ],
)
def test_such_a_word_would_be_found(line: str) -> None:
    assert WEAKER.search(METRIC.sub("", line))


def _environment(path: Path) -> Iterator[str]:
    """Names of variables that a file gets or sets."""
    for node in ast.walk(tree(path)):
        key: ast.expr | None = None
        if isinstance(node, ast.Subscript) and "environ" in ast.unparse(node.value):
            key = node.slice
        elif isinstance(node, ast.Call) and re.search(
            r"environ\b.*\.(get|setdefault|pop)$|getenv$", ast.unparse(node.func)
        ):
            key = node.args[0]
        if key is not None:
            assert isinstance(key, ast.Constant), (
                f"{path}: {ast.unparse(key)}: a variable of any name"
            )
            yield str(key.value)
        if isinstance(node, ast.keyword):
            assert node.arg not in ("envvar", "auto_envvar_prefix"), f"{path}: {node.arg}"


def test_the_box_obeys_no_variable_but_those_of_its_service_manager() -> None:
    named = {name for path in sources("drivers", "edge") for name in _environment(path)}
    assert "CREDENTIALS_DIRECTORY" in named, "a test of nothing"
    assert named <= ENVIRONMENT | SET_FOR_OTHERS


def test_what_a_setting_can_weaken_is_off_until_it_is_named() -> None:
    """The two that there are, by their names; a third has to be written here first."""
    booleans: dict[str, object] = {}
    for name, model in vars(sys.modules[Config.__module__]).items():
        fields = getattr(model, "model_fields", {})
        booleans |= {f"{name}.{f}": i.default for f, i in fields.items() if i.annotation is bool}
    assert booleans.pop("Faces.require_liveness") is True
    assert booleans.pop("Broker.plain") is False
    assert set(booleans) == {"Camera.loop", "Bus.echo", "Device.timed"}, "does the new one weaken?"


ENTRIES = ("edge/cli.py", "enroll/cli.py", "hil/cli.py")


@pytest.mark.parametrize("entry", ENTRIES)
def test_telemetry_is_off_before_anything_could_import_onnxruntime(entry: str) -> None:
    """Only the standard library and click may come before the line that switches it off."""
    body = tree(Path(entry)).body
    off = [n for n, node in enumerate(body) if 'environ["ORT_DISABLE_TELEMETRY"]' in _text(node)]
    assert off, f"{entry} does not set ORT_DISABLE_TELEMETRY at its top"
    before = [node for node in body[: off[0]] if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in before:
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            head = name.split(".")[0]
            assert head in {*sys.stdlib_module_names, *FLOORS, "click"}, f"{entry}: {name}"


@pytest.mark.parametrize("entry", ENTRIES)
def test_importing_a_program_loads_no_onnxruntime_before_telemetry_is_off(entry: str) -> None:
    """Run for real: the import of onnxruntime is watched, with the variable out of the way."""
    module = entry.removesuffix(".py").replace("/", ".")
    code = f"""
import os, sys
os.environ.pop("ORT_DISABLE_TELEMETRY", None)
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("onnxruntime", "insightface"):
            assert os.environ.get("ORT_DISABLE_TELEMETRY") == "1", name
sys.meta_path.insert(0, Watch())
import {module}
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def _text(node: ast.stmt) -> str:
    return ast.unparse(node).replace("'", '"') if isinstance(node, ast.Assign) else ""


# --- what must not be in the files ---

# Put together here, so that this file is not what it looks for.
NOT_TRACKED = re.compile(
    "|".join(
        (
            r"(?<![\w.~/-])/" + r"(work|root|home|Users)/",
            "pypi" + r"\.org|" + "python" + "hosted",
            "npm" + r"js\.(org|com)|" + "index" + "-url|extra" + "-index",
            r"https?://[^\s\"'>]*/" + r"simple\b",
            "/tmp/" + "bash_jobs",
        )
    )
)


def test_no_path_of_a_machine_and_no_registry_is_tracked() -> None:
    found = []
    for path in tracked():
        try:
            text = (ROOT / path).read_text("utf-8")
        except UnicodeDecodeError:
            continue  # a model file
        for number, line in enumerate(text.splitlines(), 1):
            if NOT_TRACKED.search(line):
                found.append(f"{path}:{number}: {line.strip()[:80]}")
    assert not found


@pytest.mark.parametrize(
    "line",
    ["open('/" + "work/main/x')", "--index" + "-url x", "https://mirror.example/" + "simple/a"],
)
def test_such_a_path_would_be_found(line: str) -> None:
    assert NOT_TRACKED.search(line)


def test_no_key_or_database_is_tracked() -> None:
    unwanted = {".pem", ".key", ".db", ".sqlite", ".sqlite3", ".crt", ".csr", ".p12", ".mjkey"}
    assert not [str(path) for path in tracked() if path.suffix in unwanted]
    key = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]{40}")
    assert not [str(path) for path in tracked() if key.search((ROOT / path).read_bytes())]
