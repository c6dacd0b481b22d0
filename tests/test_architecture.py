"""The rules that every module of the package keeps: which way imports go, and what is never done."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "caterva2_jupyter"
NAME = PACKAGE.name
MODULES = sorted(PACKAGE.rglob("*.py"))

# What each part may import of the package, besides itself.
BASE = {"errors", "core"}
SERVICES = {"broker", "publisher", "subscriber"}
ALLOWED = {
    "errors": set(),
    "core": {"errors"},
    "config": BASE,
    "compute": BASE,
    "storage": BASE | {"config", "compute"},
    "web": BASE | {"config", "compute", "storage"},
    "broker": BASE | {"config", "storage", "web"},
    "publisher": BASE | {"config", "compute", "storage", "web"},
    "subscriber": BASE | {"config", "compute", "storage", "web"},
    "client": BASE | {"config", "compute"},
    "xarray_backend": BASE | {"compute", "client"},
    "dask_array": BASE | {"compute", "client"},
    "widgets": BASE | {"config", "compute", "client", "xarray_backend", "dask_array"},
    "cli": BASE | {"config", "client", "widgets"},
    "tui": BASE | {"config", "client", "cli"},
    "tools": BASE | {"config", "compute", "storage", "client"},
    "tests": BASE | {"config", "compute", "client", "xarray_backend", "tools", "publishing"},
    "testing": BASE | {"config", "compute", "storage"},
    "publishing": BASE | {"config", "storage", "web", "publisher", "client", "xarray_backend"},
    "programs": set(),  # names programs, imports none before it is asked for
    # The public API is that of the client; Jupyter's hooks are found, lazily, in the subscriber.
    "__init__": BASE | {"config", "client", "xarray_backend", "widgets", "subscriber", "publishing"},
}
CLIENT_SIDE = {"errors", "core", "config", "compute", "client", "xarray_backend", "dask_array", "widgets", "cli", "tui"}


def part_of(module):
    """The part of the package that a file is in."""
    relative = module.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def called(module):
    return str(module.relative_to(PACKAGE))


@cache
def tree_of(module):
    return ast.parse(module.read_text(), str(module))


def imported(module):
    """Absolute names of all that a module imports, also inside functions."""
    package = [NAME, *module.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = [*base, *(node.module.split(".") if node.module else [])]
            yield from (".".join([*origin, alias.name]) for alias in node.names)


def imported_parts(module):
    """Parts of the package that a module imports."""
    for name in imported(module):
        first, *rest = name.split(".")
        if first == NAME:
            is_part = rest and any((PACKAGE / f"{rest[0]}{end}").exists() for end in ("", ".py"))
            yield rest[0] if is_part else "__init__"


def test_every_part_has_its_place():
    assert {part_of(module) for module in MODULES} <= set(ALLOWED)


@pytest.mark.parametrize("module", MODULES, ids=called)
def test_imports_go_down(module):
    part = part_of(module)
    upward = set(imported_parts(module)) - ALLOWED[part] - {part}
    # The version is all that may be asked of the package itself.
    asked = {name for name in imported(module) if name == f"{NAME}.__version__"}
    if asked:
        upward.discard("__init__")
    assert not upward, f"{called(module)} may not import {sorted(upward)}"


def test_no_service_knows_another_nor_the_client():
    for part in SERVICES:
        assert not ALLOWED[part] & (SERVICES | {"client", "cli", "tools", "testing"})


PURE = [m for m in MODULES if part_of(m) in ("core", "compute") and called(m) != "compute/worker.py"]


@pytest.mark.parametrize("module", PURE, ids=called)
def test_the_core_is_pure(module):
    """NumPy and the standard library, blosc2 in one module and to compute with; no I/O, no async, no clock."""
    impure = {"asyncio", "concurrent", "io", "os", "pathlib", "random", "secrets", "select", "shutil", "socket",
              "sqlite3", "subprocess", "tempfile", "threading", "time"}  # fmt: skip
    names = set(imported(module))
    roots = {name.split(".")[0] for name in names} - {NAME, "__future__"}
    foreign = {root for root in roots if root not in sys.stdlib_module_names}
    codecs = (
        {"blosc2"} if module.stem == "codec" else {"blosc2", "numcodecs"} if part_of(module) == "compute" else set()
    )
    assert foreign <= {"numpy"} | codecs
    assert not roots & impure
    assert not any(name.startswith("urllib.") and not name.startswith("urllib.parse") for name in names)
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Call):
            function = node.func
            clock = isinstance(function, ast.Attribute) and function.attr in ("now", "utcnow", "today")
            opens = isinstance(function, ast.Name) and function.id in ("open", "print", "input")
            assert not clock, f"line {node.lineno}"
            assert not opens, f"line {node.lineno}"


@pytest.mark.parametrize("module", [m for m in MODULES if part_of(m) in CLIENT_SIDE], ids=called)
def test_the_client_side_needs_no_server_and_no_hdf5(module):
    roots = {name.split(".")[0] for name in imported(module)}
    assert not roots & {"tornado", "jupyter_server", "h5py", "hdf5plugin", "aiohttp"}


def test_importing_the_package_loads_no_server_and_no_hdf5():
    program = (
        f"import sys, {NAME}; print([m for m in ('tornado', 'h5py', 'aiohttp', 'jupyter_server') if m in sys.modules])"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", MODULES, ids=called)
def test_nothing_that_came_as_data_is_run(module):
    """A4: no evaluated text, no pickles, no YAML, no stored expressions."""
    roots = {name.split(".")[0] for name in imported(module)}
    assert not roots & {
        "pickle",
        "cPickle",
        "cloudpickle",
        "dill",
        "marshal",
        "shelve",
        "yaml",
        "jsonpickle",
        "numexpr",
    }
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name):
                assert function.id not in ("eval", "exec", "compile", "__import__"), f"line {node.lineno}"
            if isinstance(function, ast.Attribute):
                forbidden = {"lazyudf", "unpack_array", "unpack_array2"}
                if ast.unparse(function.value).split(".")[-1] not in ("client", "ada"):  # whose method is ours
                    forbidden.add("lazyexpr")
                assert function.attr not in forbidden, f"line {node.lineno}"
            for keyword in node.keywords:
                is_true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                assert not (keyword.arg == "allow_pickle" and is_true), f"line {node.lineno}"


@pytest.mark.parametrize("module", MODULES, ids=called)
def test_a_module_begins_by_saying_what_it_is_for(module):
    body = tree_of(module).body
    if not body:
        return
    assert ast.get_docstring(tree_of(module)), "no docstring"
    futures = [name for name in imported(module) if name.startswith("__future__")]
    assert futures == ["__future__.annotations"] or len(body) == 1


MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MUTABLE_CALLS = {"list", "dict", "set", "defaultdict", "deque", "OrderedDict", "Counter", "WeakValueDictionary"}
MUTATING = {"append", "add", "update", "pop", "setdefault", "clear", "extend", "insert", "remove", "discard", "popitem"}


def is_mutable(value):
    is_call = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in MUTABLE_CALLS
    return isinstance(value, MUTABLE) or is_call


def module_containers(module):
    """Names that a module binds to mutable containers."""
    for node in tree_of(module).body:
        if isinstance(node, ast.Assign) and is_mutable(node.value):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and is_mutable(node.value):
            yield node.target.id


@pytest.mark.parametrize("module", MODULES, ids=called)
def test_modules_hold_no_state(module):
    names = set(module_containers(module))
    variables = {name for name in names if not name.strip("_").isupper() and not name.startswith("__")}
    assert not variables, f"constants are written in capitals, state lives in objects: {variables}"
    for node in ast.walk(tree_of(module)):
        assert not isinstance(node, ast.Global), f"line {node.lineno}: global"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATING:
            owner = node.func.value
            assert not (isinstance(owner, ast.Name) and owner.id in names), f"line {node.lineno} changes {owner.id}"
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, (ast.Store, ast.Del)):
            owner = node.value
            assert not (isinstance(owner, ast.Name) and owner.id in names), f"line {node.lineno} changes {owner.id}"
