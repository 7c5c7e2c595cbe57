"""The house rules that a machine can hold: layers, sizes, bans, heads, dead modules.

Each rule is a function from a parsed module to findings, so that a short offending source can show
that it is able to fail. To change a rule, edit its table; to break one, with a reason, add a line to
EXEMPTIONS, of which there are never more than five.
"""

from __future__ import annotations

import ast
import builtins
import io
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCE: Final = ROOT / "src" / "tallystick"
TESTS: Final = ROOT / "tests"
VERIFIER: Final = ROOT / "verifier"

MODULE_LINES_MAX: Final = 400
FUNCTION_LINES_MAX: Final = 50
POSITIONAL_MAX: Final = 5
HEAD_LINES_MAX: Final = 10
EXEMPTIONS_MAX: Final = 5
JUDGING: Final = frozenset(
    {"bundle", "canonical", "ed25519", "forms", "manifest", "notes", "package", "select", "times", "tree"}
)
"""The verifier's modules by which a bundle is judged; the others ask them, and tell and print what they found."""
JUDGING_LINES_MAX: Final = 1_120
VERIFIER_LINES_MAX: Final = 1_400
"""Lines of code; what explains it, and the room between, only help the reader. 170 of them are the selectors."""

BUILTINS: Final = frozenset(dir(builtins))

EXEMPTIONS: Final[tuple[tuple[str, str, str], ...]] = ()
"""(rule, path from the root, reason)."""

# ------------------------------------------------------------------------------------------ the tables

PUBLIC: Final = "(the public names)"
"""`tallystick/__init__.py` itself, as the target of an import."""

ANYONE: Final = ("errors", "limits")
"""What every module may import."""

OUR_OWN: Final = ("clock", "ids", "keystore", "private_file")
"""Time, randomness, secrets and what is kept from others: handed in at the front door, known to what is built behind
it."""

STORED: Final = (
    *("store.contract", "store.contradiction", "store.head_mark", "store.lineage", "store.mark_file", "store.proofs"),
    *("store.proven_store", "store.reading"),
    *("store.trusted_keys", "store.verified_reads", "store.when"),
)
"""The port, and reading through it with suspicion: what everyone but the adapters knows of stores."""

BUILT_ON_READ: Final = (*OUR_OWN, "config", "core", "ledger", "read", *STORED)
DECIDED: Final = (
    "govern.orders",
    "govern.pruning",
    "govern.registered",
    "govern.registry",
    "govern.retention",
    "govern.schemas",
)
FRONT_DOOR: Final = (*OUR_OWN, "config", "core", "evidence", *DECIDED, "read", *STORED, "write")
ANSWERS: Final = tuple(
    f"read.{name}"
    for name in (
        "as_of",
        "compared",
        "index",
        "projection",
        "query",
        "search",
        "shapes",
        "signed",
        "state",
        "timeseries",
    )
)
"""The values that questions and answers are made of."""

BORDER: Final = (PUBLIC, "backups", "config", "core", "deployment", "evidence", *DECIDED, "ledger", *ANSWERS)

LAYERS: Final[dict[str, tuple[str, ...]]] = {
    PUBLIC: ("backups", "client", "deployment", "ledger", "opening", *FRONT_DOOR),
    "errors": (),
    "limits": (),
    "clock": (),
    "core": ("core",),
    "ids": (),
    "private_file": (),
    "durable": ("private_file",),
    "plain_file": ("private_file",),
    "made_file": ("durable", "plain_file", "private_file"),
    "keystore": ("core", "durable", "ids", "private_file"),
    "store.contract": ("core", "made_file"),
    "store.reading": ("core", "store.contract"),
    "store.proofs": ("core", "store.contract", "store.verified_reads"),
    "store.proven_store": ("core", "made_file", "store.contract", "store.verified_reads"),
    "store.trusted_keys": ("core", "store.contract", "store.reading", "store.verified_reads"),
    "store.verified_reads": ("core", "store.contract", "store.reading"),
    "store.when": ("core", "store.contract"),
    "store.lineage": ("core", "store.contract", "store.reading"),
    "store.contradiction": ("core", "store.contract", "store.verified_reads"),
    "store.head_mark": (
        *("core", "durable", "plain_file", "private_file"),
        *("store.contract", "store.contradiction", "store.mark_file"),
    ),
    "store.mark_file": ("core", "plain_file"),
    "store": ("core", "made_file", "plain_file", "sqlite_file", "store.contract"),  # the adapters: never each other
    "store.sqlite": (
        *("core", "made_file", "plain_file", "private_file", "sqlite_file", "sqlite_intact"),
        *("store.contract", "store.sqlite_prune", "store.sqlite_rows"),
    ),
    "sqlite_file": ("made_file", "plain_file", "private_file", "sqlite_target"),
    "sqlite_target": ("made_file", "private_file"),
    "sqlite_intact": ("sqlite_file",),
    "write": ("clock", "core", "durable", "ids", "made_file", "plain_file", "private_file", *STORED, "write"),
    "read": (
        *("clock", "core", "durable", "ids", "made_file", "plain_file", "read", "sqlite_file", "sqlite_intact"),
        *STORED,
    ),
    "config": (*OUR_OWN, "core", "made_file", "read", "store", "time_source", "write.run_set"),
    "time_source": ("clock",),
    "appending": ("core", "govern.registry", "write"),
    "asking": ("config", "core", "keystore", "read"),
    "proving": FRONT_DOOR,
    "governing": ("asking", *FRONT_DOOR),
    "queueing": FRONT_DOOR,
    "guarding": FRONT_DOOR,
    "ledger": ("appending", "asking", "governing", "guarding", "proving", "queueing", *FRONT_DOOR),
    "opening": (*FRONT_DOOR, "ledger"),
    "backups": ("backups", "durable", "govern.directory", "ledger", "made_file", "opening", "plain_file", *FRONT_DOOR),
    "leases": ("ledger", "queueing", "store.contradiction"),
    "system_ledger": ("evidence.findings", "ledger", "queueing", "store.contradiction"),
    "deployment": (
        *(
            *OUR_OWN,
            "config",
            "core",
            "govern",
            "leases",
            "ledger",
            "opening",
            "plain_file",
            "queueing",
            "system_ledger",
        ),
        "write.queue",
    ),
    "evidence": ("durable", "evidence", "made_file", "plain_file", *BUILT_ON_READ),
    "evidence.verification.beside": (
        *("config", "core", "evidence", "read", *STORED),
        *("write.queue", "write.queue_check", "write.queue_mark", "write.run_set"),
    ),
    "evidence.others.witness": ("core", "clock", "config", "keystore", "sqlite_file"),
    "govern": ("govern", *BUILT_ON_READ),
    "govern.head": ("core", *STORED),  # what the front door itself orders, and so must not know it
    "govern.selection": ("core", "read", *STORED),
    "govern.breaches": (),
    "govern.document": ("core", "govern.breaches"),
    "govern.compatibility": ("core", "govern.breaches", "govern.document"),
    "govern.infer": ("govern.document",),
    "govern.registered": ("core", "govern.document"),
    "govern.registry": (
        *("core", "govern.breaches", "govern.document", "govern.registered", "read", *STORED),
        "write.rules",
    ),
    "govern.schemas": (
        *("core", "govern.compatibility", "govern.document", "govern.infer"),
        *("govern.registered", "govern.registry", "govern.orders", "read", "store.verified_reads"),
    ),
    "govern.orders": ("core", "store.verified_reads"),
    "govern.pruning": ("core", "govern.selection"),
    "govern.plans": ("core",),
    "govern.retention": (
        "clock",
        "core",
        "govern.head",
        "govern.orders",
        "govern.pruning",
        "govern.selection",
        "read",
        *STORED,
    ),
    "privacy": ("privacy", *BUILT_ON_READ),
    "deliver": ("deliver", *BUILT_ON_READ),
    "serve": (
        "clock",
        "durable",
        "govern.access",
        "govern.directory",
        "govern.plans",
        "govern.registered",
        "ids",
        "plain_file",
        "private_file",
        "serve",
        "store.contradiction",
        "write.request",
        *BORDER,
    ),
    "serve.oidc": ("govern.access", "govern.directory"),
    "serve.jwks": ("core", "serve.oidc"),
    "serve.tokens": ("core", "govern.access", "serve.jwks", "serve.oidc"),  # it judges, and asks nobody
    "serve.issuers": ("core", "serve.jwks", "serve.oidc"),
    "serve.authentication": (
        *("deployment", "govern.access"),
        *("serve.issuers", "serve.jwks", "serve.oidc", "serve.tokens"),
    ),
    "client": (
        *("asking", "client", "clock", "core", "durable", "evidence.bundle.export", "evidence.findings"),
        *("govern.registered", "govern.schemas", "ids", *ANSWERS, "private_file", "write.queue", "write.request"),
    ),
    "cli": ("cli", "integrations", *BORDER),
    "cli.texts": ("cli", "durable", "private_file", *BORDER),  # it writes what a command is asked to make
    # A queue that no process has open is looked at, and repaired, without a ledger.
    "cli.queue": ("cli", "clock", "write.queue", "write.queue_findings", "write.queue_repair", *BORDER),
    "cli.outside": ("cli", "serve.witness", *BORDER),  # it starts the witness
    "cli.serve": ("cli", "serve.diagnostics", "serve.server", "serve.settings", *BORDER),  # it starts the service
    "cli.projection": ("cli", "read.sqlite_cursors", *BORDER),  # it changes what is kept of projections, by name
    "__main__": ("cli",),
    "integrations": ("integrations", *BORDER),
    "integrations.asgi": ("clock", "integrations", *BORDER),
    "integrations.logging": ("clock", "integrations", *BORDER),
    "integrations.sending": ("client.tries", "clock", "ids", "integrations", *BORDER),
}
"""Module or package → what of tallystick it may import. The longest name that fits a module counts."""

EVERYWHERE: Final = ("",)
THIRD_PARTY: Final[dict[str, tuple[str, ...]]] = {
    "anyio": ("serve",),
    "apsw": (
        "sqlite_file",
        "sqlite_intact",
        "sqlite_target",
        "store.sqlite",
        "store.sqlite_prune",
        "store.sqlite_rows",
        "store.sqlite_sealing",
        "read.index_files",
        "read.sqlite_saving",
        "read.sqlite_index",
        "read.sqlite_schema",
        "read.sqlite_check",
        "read.sqlite_check_postings",
        "read.sqlite_check_rollups",
        "read.sqlite_check_snapshots",
        "read.sqlite_reached",
        "read.sqlite_cursors",
        "evidence.controls.search",
    ),
    "click": ("cli",),
    "cryptography": (
        *("backups.standing", "core", "keystore", "write"),
        *("evidence.others.authority", "evidence.bundle.delivery", "evidence.bundle.export"),
    ),
    "fastapi": ("serve",),
    "httpcore2": ("client.transport",),
    "httpx2": ("client.calls", "client.transport", "evidence.others.post", "serve.issuers", "serve.peers"),
    "jinja2": ("evidence.report",),
    "joserfc": ("serve.jwks", "serve.tokens"),
    "jsonschema_rs": ("govern.breaches", "govern.document"),
    "websockets": ("serve.protocol", "serve.websocket"),
    "markdown_it": ("evidence.report",),
    "msgspec": EVERYWHERE,
    "nh3": ("evidence.report",),
    "orjson": EVERYWHERE,
    "prometheus_client": ("serve",),
    "structlog": ("serve",),
    "pydantic": ("serve",),
    "rfc3161_client": ("evidence.others.authority",),
    "rfc8785": ("core",),
    "starlette": ("serve",),
    "typst": ("evidence.report",),
    "httptools": ("serve",),
    "uvicorn": ("serve",),
    "yaml": ("evidence.controls.plain_yaml",),
    "zstandard": ("serve",),
    "rich": ("cli",),
}
"""Dependency → who may import it. One that stands nowhere here has no decision record either."""

CORE_WITHOUT: Final = (
    *("asyncio", "io", "logging", "multiprocessing", "os", "pathlib", "random", "secrets", "shutil"),
    *("socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "urllib"),
)
"""The standard library's I/O, clocks and randomness, which `core` must not know."""

BANS: Final[dict[str, tuple[str, ...]]] = {
    "time.time": ("clock",),
    "time.time_ns": ("clock",),
    "datetime.datetime.now": ("clock",),
    "datetime.datetime.utcnow": ("clock",),
    "datetime.datetime.today": ("clock",),
    "datetime.date.today": ("clock",),
    "uuid.uuid1": (),
    "uuid.uuid4": (),
    "random": (),
    "secrets": ("ids",),
    "os.urandom": ("ids",),
    "print": (),
    "os.environ": ("config",),
    "os.getenv": ("config",),
    ".splitlines": (),  # it also splits at U+0085 and U+2028, which are legal inside JSON: split on b"\n"
}
"""Name, or `.method` on anything → the modules in which it is allowed."""

PLAIN_ONLY: Final = (
    *("backups.make", "backups.source", "deployment", "evidence.others.cosigning", "read", "serve.jobs", "serve.watch"),
    *("store", "write"),
)
"""What opens files below a data folder: through `plain_file`, which follows no link."""

PLAIN_BANS: Final[dict[str, tuple[str, ...]]] = {
    "open": (),
    "os.open": (),
    ".open": (),
    ".read_bytes": (),
    ".write_bytes": (),
    "shutil.rmtree": ("write.queue_copy", "write.queue_repair"),
}
"""The same as `BANS`, within `PLAIN_ONLY`: a copy is written into a folder that was just made, and is not linked."""

CREATING_BANS: Final[dict[str, tuple[str, ...]]] = {
    "open": (),
    "io.open": (),
    "os.creat": (),
    "os.makedirs": (),
    "os.mkdir": (),
    "os.mknod": (),
    "os.open": ("backups.found", "cli.screen", "durable", "private_file"),  # all but the last only read
    "shutil.copy": (),
    "shutil.copy2": (),
    "shutil.copyfile": (),
    "shutil.copytree": (),
    ".mkdir": ("evidence.tiles", "private_file"),  # tiles are published, and have the modes of the umask
    ".touch": (),
    ".write_bytes": (),
    ".write_text": (),
}
"""The same as `BANS`: what creates files and directories of which `private_file` does not choose the mode. `.open` in a
mode that creates a file is looked for besides."""
OPENED_TO_CREATE: Final = ("durable",)
"""Where `.open` may create a file: the one that is published."""

TEST_BANS: Final[dict[str, tuple[str, ...]]] = {
    "pytest.skip": (),
    "pytest.importorskip": (),
    "pytest.mark.skip": (),
    "pytest.mark.skipif": (),
    "unittest.skip": (),
}
"""A test that needs a tool is marked; conftest.py deselects it visibly, and CI has the tool."""

ENTRY_POINTS: Final = (PUBLIC, "__main__", "cli", "cli.__main__", "integrations", "serve.app")
"""Modules that the world outside imports; all of `integrations` is there for applications."""

# ------------------------------------------------------------------------------------- what a rule sees


class Import(NamedTuple):
    line: int
    target: str
    """The dotted module; inside tallystick without its first part."""
    inside: bool


class Finding(NamedTuple):
    rule: str
    path: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Module:
    name: str
    path: str
    tree: ast.Module
    lines: int
    code_lines: int
    imports: tuple[Import, ...]

    def within(self, *prefixes: str) -> bool:
        return any(is_within(self.name, prefix) for prefix in prefixes)


def is_within(name: str, prefix: str) -> bool:
    return not prefix or name == prefix or name.startswith(prefix + ".")


def parse(name: str, path: str, source: str, known: frozenset[str]) -> Module:
    tree = ast.parse(source, filename=path)
    imports = tuple(found for node in ast.walk(tree) for found in imports_of(node, known))
    code = len(code_lines(source, tree))
    return Module(name=name, path=path, tree=tree, lines=source.count("\n"), code_lines=code, imports=imports)


def code_lines(source: str, tree: ast.Module) -> set[int]:
    """The numbers of the lines that are code: no docstrings, no comments, no empty lines."""
    aside = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in aside:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            lines.difference_update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return lines


def imports_of(node: ast.AST, known: frozenset[str]) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield import_of(node.lineno, alias.name)
    elif isinstance(node, ast.ImportFrom) and node.module is not None:
        for alias in node.names:
            below = f"{node.module}.{alias.name}"
            yield import_of(node.lineno, below if below in known else node.module)


def import_of(line: int, dotted: str) -> Import:
    first, _, rest = dotted.partition(".")
    return Import(line, rest or PUBLIC, True) if first == "tallystick" else Import(line, dotted, False)


def modules_under(folder: Path, package: str) -> tuple[Module, ...]:
    """Every module under `folder`, named as inside `package`, whose own module is PUBLIC."""
    places: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        places[".".join(parts[:-1] if parts[-1] == "__init__" else parts) or PUBLIC] = path
    known = frozenset(f"{package}.{name}" for name in places)
    return tuple(
        parse(name, path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"), known)
        for name, path in places.items()
    )


# ------------------------------------------------------------------------------------------- the rules


def layering(module: Module) -> Iterator[Finding]:
    """A module imports only what its layer may see (DESIGN: who may import whom)."""
    layer = max((name for name in LAYERS if is_within(module.name, name)), key=len, default=None)
    if layer is None:
        yield Finding("layering", module.path, 1, f"LAYERS does not say what '{module.name}' may import")
        return
    allowed = (*LAYERS[layer], *ANYONE)
    for line, target, inside in module.imports:
        if inside and target != module.name and not any(is_within(target, prefix) for prefix in allowed):
            yield Finding("layering", module.path, line, f"'{module.name}' may not import '{target}'")


def outside(module: Module) -> Iterator[Finding]:
    """A dependency stays in its place, and `core` is pure."""
    for line, target, inside in module.imports:
        top = target.partition(".")[0]
        if inside or top == "__future__":
            continue
        if top in sys.stdlib_module_names:
            if module.within("core") and top in CORE_WITHOUT:
                yield Finding("outside", module.path, line, f"core is pure and may not import '{top}'")
        elif top not in THIRD_PARTY:
            yield Finding("outside", module.path, line, f"THIRD_PARTY does not know the dependency '{top}'")
        elif not module.within(*THIRD_PARTY[top]):
            yield Finding("outside", module.path, line, f"'{module.name}' may not import '{top}'")


def sizes(module: Module) -> Iterator[Finding]:
    """Modules and functions are short; arguments after the first few are named by the caller."""
    if module.lines > MODULE_LINES_MAX:
        yield Finding("size", module.path, 1, f"{module.lines} lines, at most {MODULE_LINES_MAX}")
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        lines = body_lines(node)
        if lines > FUNCTION_LINES_MAX:
            problem = f"{node.name}: {lines} lines, at most {FUNCTION_LINES_MAX}"
            yield Finding("size", module.path, node.lineno, problem)
        positional = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
        count = len(positional) - (positional[:1] in (["self"], ["cls"]))
        if count > POSITIONAL_MAX:
            problem = f"{node.name}: {count} positional arguments, at most {POSITIONAL_MAX}"
            yield Finding("size", module.path, node.lineno, problem)


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function without its signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    last = function.end_lineno
    return last - body[0].lineno + 1 if body and last is not None else 0


def heads(module: Module) -> Iterator[Finding]:
    """Every module begins with what it is, in at most ten lines."""
    head = ast.get_docstring(module.tree)
    if not head:
        yield Finding("head", module.path, 1, "the module has no docstring")
    elif head.count("\n") + 1 > HEAD_LINES_MAX:
        yield Finding("head", module.path, 1, f"the docstring has more than {HEAD_LINES_MAX} lines")


def bans(module: Module, table: dict[str, tuple[str, ...]] | None = None) -> Iterator[Finding]:
    """Clock, ids, environment and output have one module each; some names have none."""
    table = BANS if table is None else table
    meaning = names_imported(module.tree)
    for node in ast.walk(module.tree):
        for name in names_used(node, meaning):
            for banned, allowed in table.items():
                hit = name.endswith(banned) if banned.startswith(".") else is_within(name, banned)
                if hit and not (allowed and module.within(*allowed)):
                    where = f"; its place is {', '.join(allowed)}" if allowed else ""
                    yield Finding("ban", module.path, getattr(node, "lineno", 1), f"'{banned}'{where}")


def plain(module: Module) -> Iterator[Finding]:
    """Files below a data folder are opened without following links."""
    if module.within(*PLAIN_ONLY):
        yield from bans(module, PLAIN_BANS)


def private(module: Module) -> Iterator[Finding]:
    """Files and directories are created by `private_file`, for their owner alone."""
    yield from bans(module, CREATING_BANS)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "open":
            given = [*node.args[:1], *(one.value for one in node.keywords if one.arg == "mode")]
            modes = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            creates = any(set(mode) <= set("rwxabt+") and set(mode) & set("wxa") for mode in modes)
            if creates and not module.within(*OPENED_TO_CREATE):
                yield Finding("private", module.path, node.lineno, "'.open' creates a file; use private_file")


def names_imported(tree: ast.Module) -> dict[str, str]:
    """Local name → the dotted name that it stands for."""
    meaning: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                meaning[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                meaning[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return meaning


def names_used(node: ast.AST, meaning: dict[str, str]) -> Iterator[str]:
    """The dotted name that a node uses, imports resolved; of a local name only the `.members` count."""
    if isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.Name):
        yield meaning.get(node.id, node.id if node.id in BUILTINS else "")
    elif isinstance(node, ast.Attribute):
        parts = [node.attr]
        value = node.value
        while isinstance(value, ast.Attribute):
            parts.append(value.attr)
            value = value.value
        parts.append(meaning.get(value.id, "") if isinstance(value, ast.Name) else "")
        yield ".".join(reversed(parts))


def skips(module: Module) -> Iterator[Finding]:
    """A test is run or visibly deselected, never skipped from inside."""
    yield from bans(module, TEST_BANS)


def excepts(module: Module) -> Iterator[Finding]:
    """No exception is swallowed: none caught without a name, none broad and ignored."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        if node.type is None:
            yield Finding("except", module.path, node.lineno, "a bare except; name what can happen")
        elif ast.unparse(node.type) in ("Exception", "BaseException") and all(
            isinstance(statement, ast.Pass | ast.Continue) for statement in node.body
        ):
            yield Finding("except", module.path, node.lineno, "every exception is swallowed here")


def independence(module: Module) -> Iterator[Finding]:
    """The verifier shares no code with the writer (I6)."""
    for line, target, inside in module.imports:
        if inside:
            yield Finding("independence", module.path, line, f"the verifier imports '{target}' of tallystick")


def dead(modules: Iterable[Module]) -> Iterator[Finding]:
    """A module that no other one imports, or names in a string for a late import, is dead."""
    modules = tuple(modules)
    used: set[str] = set()
    for module in modules:
        used |= {target for _, target, inside in module.imports if inside and target != module.name}
        used |= {
            node.value.removeprefix("tallystick.")
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
    packages = {module.name for module in modules if module.path.endswith("__init__.py")}
    for module in modules:
        in_use = module.name in used or module.name in ENTRY_POINTS or module.within("integrations")
        if not in_use and module.name not in packages:
            yield Finding("dead", module.path, 1, f"nothing imports '{module.name}'")


Rule: TypeAlias = Callable[[Module], Iterator[Finding]]

SOURCE_RULES: Final[tuple[Rule, ...]] = (layering, outside, sizes, heads, bans, plain, private, excepts)
VERIFIER_RULES: Final[tuple[Rule, ...]] = (sizes, heads, excepts, independence)


def broken_in(modules: Iterable[Module], rules: tuple[Rule, ...]) -> Iterator[Finding]:
    return (finding for rule in rules for module in modules for finding in rule(module))


def report(findings: Iterable[Finding]) -> str:
    exempt = {(rule, path) for rule, path, _ in EXEMPTIONS}
    kept = sorted(finding for finding in findings if (finding.rule, finding.path) not in exempt)
    return "\n".join(map(str, kept))


def source_findings() -> list[Finding]:
    modules = modules_under(SOURCE, "tallystick")
    return [*broken_in(modules, SOURCE_RULES), *dead(modules)]


# -------------------------------------------------------------------------------------------- the tests


@pytest.mark.slow
def test_the_source_keeps_the_house_rules() -> None:
    broken = report(source_findings())
    assert not broken, f"\n{broken}"


def test_no_test_skips_itself() -> None:
    broken = report(broken_in(modules_under(TESTS, "tests"), (skips,)))
    assert not broken, f"\n{broken}"


def test_the_verifier_stands_alone_and_is_read_in_one_sitting() -> None:
    modules = [module for module in modules_under(VERIFIER, "tallystick_verify") if "test" not in module.path]
    broken = report(broken_in(modules, VERIFIER_RULES))
    assert not broken, f"\n{broken}"
    assert sum(module.code_lines for module in modules) <= VERIFIER_LINES_MAX
    judging = [module for module in modules if Path(module.path).stem in JUDGING]
    assert len(judging) == len(JUDGING)
    assert sum(module.code_lines for module in judging) <= JUDGING_LINES_MAX


@pytest.mark.slow
def test_there_are_few_exemptions_and_each_is_needed() -> None:
    found = {(finding.rule, finding.path) for finding in source_findings()}
    assert len(EXEMPTIONS) <= EXEMPTIONS_MAX
    assert [line for line in EXEMPTIONS if line[:2] not in found] == []


LONG_FUNCTION: Final = "def long():\n    '''Said in\n    two lines.'''\n" + "    x = 1\n" * 51
"""Fifty-one lines under a docstring."""

OFFENCES: Final[tuple[tuple[Rule, str, str, str], ...]] = (
    (layering, "core.event", "from tallystick.store import contract", "may not import 'store.contract'"),
    (layering, "store.sqlite", "import tallystick.store.memory", "may not import 'store.memory'"),
    (layering, "write.seal", "from tallystick.read.query import x", "may not import 'read.query'"),
    (layering, "read.state", "from tallystick.write import seal", "may not import 'write'"),
    (layering, "cli.append", "import tallystick.write.seal", "may not import 'write.seal'"),
    (layering, "ledger", "from tallystick.store.sqlite import x", "may not import 'store.sqlite'"),
    (layering, "core.event", "import tallystick", f"'core.event' may not import '{PUBLIC}'"),
    (layering, "helpers", "", "LAYERS does not say what 'helpers' may import"),
    (outside, "core.keys", "def f():\n    import os", "core is pure and may not import 'os'"),
    (outside, "read.query", "import apsw", "'read.query' may not import 'apsw'"),
    (outside, "serve.app", "from requests import get", "THIRD_PARTY does not know the dependency 'requests'"),
    (sizes, "core.event", "\n" * 401, "401 lines, at most 400"),
    (sizes, "core.event", LONG_FUNCTION, "long: 51 lines, at most 50"),
    (sizes, "core.event", "def f(a, b, c, /, d, e, f): ...", "f: 6 positional arguments, at most 5"),
    (heads, "core.event", "x = 1", "the module has no docstring"),
    (heads, "core.event", '"""One.' + "\nMore." * 10 + '"""', "the docstring has more than 10 lines"),
    (bans, "write.seal", "import time\nx = time.time()", "'time.time'; its place is clock"),
    (bans, "write.seal", "from time import time_ns as now", "'time.time_ns'; its place is clock"),
    (bans, "write.seal", "import datetime as d\nd.datetime.now(d.UTC)", "'datetime.datetime.now'"),
    (bans, "write.seal", "from datetime import datetime\ndatetime.utcnow()", "'datetime.datetime.utcnow'"),
    (bans, "write.seal", "from uuid import uuid4", "'uuid.uuid4'"),
    (bans, "write.seal", "from random import choice", "'random'"),
    (bans, "core.keys", "from os import urandom as take\ntake(32)", "'os.urandom'; its place is ids"),
    (bans, "cli.append", "print('x')", "'print'"),
    (bans, "ledger", "import os\nos.environ['HOME']", "'os.environ'; its place is config"),
    (plain, "write.journal", "with path.open('rb') as file: ...", "'.open'"),
    (plain, "serve.jobs", "from shutil import rmtree\nrmtree(x)", "'shutil.rmtree'; its place is"),
    (private, "cli.texts", "path.open('wb')", "'.open' creates a file"),
    (private, "cli.texts", "path.open(mode='x', encoding='utf-8')", "'.open' creates a file"),
    (private, "cli.texts", "open(path, 'w')", "'open'"),
    (private, "cli.texts", "path.write_text('x')", "'.write_text'"),
    (private, "write.queue", "folder.mkdir(parents=True)", "'.mkdir'; its place is"),
    (bans, "read.query", "data = read()\nfor line in data[1:].splitlines(): ...", "'.splitlines'"),
    (skips, "test_x", "import pytest\npytest.skip('no server')", "'pytest.skip'"),
    (skips, "test_x", "import pytest\n@pytest.mark.skipif(True)\ndef f(): ...", "'pytest.mark.skipif'"),
    (excepts, "read.query", "try:\n    x()\nexcept:\n    raise", "a bare except; name what can happen"),
    (excepts, "read.query", "try:\n    x()\nexcept Exception:\n    pass", "swallowed here"),
    (independence, "verify", "import tallystick.core", "the verifier imports 'core' of tallystick"),
)


@pytest.mark.parametrize(("rule", "name", "source", "problem"), OFFENCES)
def test_each_rule_finds_its_offence(rule: Rule, name: str, source: str, problem: str) -> None:
    module = parse(name, "offence.py", source, frozenset({"tallystick.store.contract"}))

    assert any(problem in finding.problem for finding in rule(module))


def test_a_parameter_may_bear_a_banned_name() -> None:
    module = parse("ids", "ids.py", "def f(random, print=None):\n    random(10).real", frozenset())

    assert [*bans(module)] == []


def test_a_module_that_nothing_imports_is_dead() -> None:
    nothing = frozenset[str]()
    ledger = parse("ledger", "ledger.py", "import tallystick.core.event", nothing)
    public = parse(PUBLIC, "__init__.py", "import tallystick.ledger", nothing)
    event = parse("core.event", "core/event.py", "", nothing)
    forgotten = parse("core.forgotten", "core/forgotten.py", "import tallystick.core.forgotten", nothing)

    assert [finding.path for finding in dead([public, ledger, event, forgotten])] == ["core/forgotten.py"]
