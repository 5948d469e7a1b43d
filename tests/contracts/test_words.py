"""Types steer, text speaks: no code decides by a sentence that people read.

A label, a title or a tooltip must be free to be reworded. So ``src`` is read as syntax
trees, and two questions are asked of every module.

*Which strings do people read?* Every string literal (also inside an f-string, a tuple,
a conditional) that is given to something that shows text: Qt's setters and constructors
(``setText``, ``setToolTip``, ``addItem``, ``QLabel``, ``QPushButton`` …), our own
(``heading``, ``hint``, ``explain``, ``say``, ``said.emit`` …), an error or its ``msg``,
the value of a ``JobKey``; every constant of that name or module attribute, wherever it
is imported; and every string that reads as a sentence: two words or more that begin
with a capital, or end with a full stop or an ellipsis.

*Who decides by one?* Comparisons (``==``, ``!=``, ``in``, ``not in``, ``is``),
``startswith``, ``endswith``, ``find``, ``index``, ``count``, ``re.match`` and its like,
``match`` statements, look-ups (``x[text]``, ``x.get(text)``, ``x.pop(text)``,
dictionaries keyed by it) and ``findText`` or ``findItems``, where a side of it

- is a string that people read, or a constant that holds one;
- reads text back: ``.text()``, ``.toolTip()``, ``.currentText()``, ``.itemText(…)``,
  ``.windowTitle()``, ``.toPlainText()``, or an attribute or property named ``title``,
  ``tooltip``, ``sentence``, ``run_title``, ``student_trouble``, ``why_not…``; or a
  variable that was just given such a text;
- is an attribute such as ``source``, ``message`` or ``reason`` that is searched;
- in ``widgets`` and ``controllers``: is a parameter or a variable with a name of text
  (``text``, ``words``, ``sentence``, ``tooltip``, ``why_not``) that meets a literal.

A string of one word counts as read if it looks like a label (a capital, an ellipsis),
and only in these two packages: ``"affine"`` is a key wherever else it may be shown.

Asking whether a text is empty (``if why_not``) is not a comparison: a reason that is
there is a yes or no. What a person types (a class's name, a number) is data, and is
compared after it was given a name that says so. :data:`DATA` lists what has no other
way, each with its reason.
"""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import napari_histodistill

if TYPE_CHECKING:
    from collections.abc import Iterator

SRC = Path(napari_histodistill.__file__).parent
PACKAGE = SRC.name

SHOWERS = frozenset((
    "setText", "setToolTip", "setWindowTitle", "setPlaceholderText", "setTitle",
    "setStatusTip", "setItemText", "setSuffix", "setPrefix", "setWhatsThis",
    "setInformativeText", "setLabelText", "setSpecialValueText",
    "setDescription", "setFormat", "addItem", "addItems", "insertItem",
    "addAction", "addButton", "addTab", "QLabel", "QPushButton", "QCheckBox",
    "QRadioButton", "QGroupBox", "QAction", "QMessageBox", "QListWidgetItem",
    "heading", "Hint", "explain", "say", "say_in_passing", "info_button",
    "push", "tool", "asked", "editor", "ask",
    "wide_combo", "StudentCombo", "fill_combo", "show_words", "show_ready",
    "lock", "refuse", "_put", "PlainLabel", "set_tip", "plain_tip", "message_box",
))  # fmt: skip
"""Calls whose string arguments are shown."""

SHOWN_KEYWORDS = frozenset((
    "title", "tooltip", "text", "empty", "why_not", "label", "suffix", "prefix",
    "specialValueText",
))  # fmt: skip
"""Arguments by name that are shown, whatever is called."""

READ_BACK = frozenset((
    "text", "toolTip", "currentText", "itemText", "windowTitle", "toPlainText",
    "statusTip", "placeholderText", "tabText", "labelText",
))  # fmt: skip
"""Methods that return what is on the screen."""

TEXT_ATTRIBUTES = re.compile(
    r"^(title|tooltip|sentence|run_title|student_trouble|trouble|why_(not|no)\w*"
    r"|say_\w+|\w+_in_words|detail_in_words|error_text)$"
)
"""Attributes and properties that hold what people read."""

TEXT_NAMES = frozenset(("text", "words", "sentence", "tooltip", "why_not"))
"""Variables of windows and sessions that hold what people read."""

PROSE = frozenset(
    ("source", "message", "reason", "label", "note", "description", "error")
)
"""Attributes that may be keys when compared whole, but are text when searched."""

SEARCHES = frozenset(["startswith", "endswith", "find", "rfind", "index", "count"])
PATTERNS = frozenset(["match", "search", "fullmatch", "findall"])
LOOK_UPS = frozenset(["get", "pop", "setdefault", "index", "remove"])
FINDERS = frozenset(("findText", "findItems"))

DATA = {
    (
        "napari_histodistill.widgets.shared.forms",
        "box.text() == box.specialValueText()",
    ): "Qt says in no other way that the words for the unknown are shown",
    (
        "napari_histodistill.distill.spots.space_ranger",
        "kinds == 'Gene Expression'",
    ): "Space Ranger's own word in its files for rows that are genes",
    (
        "napari_histodistill.addresses",
        r"re.fullmatch('[^:]*(:\\d*)?|\\[[0-9a-fA-F:.]*\\](:\\d*)?', server)",
    ): "an address is taken apart by its own syntax",
    (
        "napari_histodistill.slides.formats.remote_store",
        "answer.headers.get('Content-Encoding', 'identity')",
    ): "HTTP's own word for a body that is not compressed",
    (
        "napari_histodistill.slides.tiff.metadata",
        "fields.get('ScanScope ID')",
    ): "Aperio's own word in its files for the number of the scanner",
}
"""(module, code) of what must decide by a text, and why."""


@dataclass
class Module:
    """One file: its tree, its constants, and where its names come from."""

    name: str
    tree: ast.Module
    constants: dict[str, ast.expr] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def parse(cls, name: str, code: str) -> Module:
        made = cls(name, ast.parse(textwrap.dedent(code)))
        for node in made.tree.body:
            made._note_constant(node)
        for node in ast.walk(made.tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    known = (node.module, alias.name)
                    made.imports[alias.asname or alias.name] = known
        return made

    def _note_constant(self, node: ast.stmt) -> None:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            return
        for target in targets:
            if isinstance(target, ast.Name):
                self.constants[target.id] = value
            elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                for name, part in zip(target.elts, value.elts, strict=False):
                    if isinstance(name, ast.Name):
                        self.constants[name.id] = part

    @property
    def is_of_windows(self) -> bool:
        return ".widgets" in self.name or ".controllers" in self.name


def modules_of(root: Path) -> list[Module]:
    found = []
    for path in sorted(root.rglob("*.py")):
        dotted = ".".join((root.name, *path.relative_to(root).with_suffix("").parts))
        found.append(Module.parse(dotted, path.read_text("utf-8")))
    return found


def is_sentence(text: str) -> bool:
    """Whether a string reads like something written for people."""
    words = text.strip()
    if not re.search(r"[^\W\d_]{2,}\W+[^\W\d_]", words):
        return False
    return bool(re.match(r"[A-Z]", words)) or words.endswith((".", "…", "?", "!"))


def is_label(text: str) -> bool:
    """Whether a string that is shown looks like a label, not like a key."""
    return " " in text.strip() or text[:1].isupper() or text.endswith("…")


def literals(node: ast.AST) -> Iterator[str]:
    """Yield the strings that an expression may be; not those inside its calls."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.value
    elif isinstance(node, ast.JoinedStr):
        parts = (p.value if isinstance(p, ast.Constant) else "0" for p in node.values)
        yield "".join(map(str, parts))
    elif isinstance(node, ast.IfExp):
        yield from literals(node.body)
        yield from literals(node.orelse)
    elif isinstance(node, (ast.BoolOp, ast.Tuple, ast.List, ast.Set)):
        for part in node.values if isinstance(node, ast.BoolOp) else node.elts:
            yield from literals(part)
    elif isinstance(node, ast.BinOp):
        yield from literals(node.left)
        yield from literals(node.right)


def called(node: ast.Call) -> str:
    """Return the last name of what is called: ``x.y.setText`` → ``setText``."""
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


class Finder:
    """Finds the strings that people read in modules, and decisions made by them."""

    def __init__(self, modules: list[Module]) -> None:
        self.modules = {module.name: module for module in modules}
        self.shown: set[str] = set()
        self.shown_constants: set[tuple[str, str]] = set()
        for module in modules:
            self._collect(module)
        for where, name in tuple(self.shown_constants):
            value = self.modules[where].constants[name]
            self.shown.update(filter(is_label, literals(value)))

    # --- what people read ---------------------------------------------------------

    def _collect(self, module: Module) -> None:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call):
                for argument in self._shown_arguments(node):
                    self._note(module, argument)
            elif isinstance(node, ast.Assign) and any(
                isinstance(t, ast.Name) and t.id == "msg" for t in node.targets
            ):
                self._note(module, node.value)
            elif isinstance(node, ast.ClassDef) and any(
                isinstance(base, ast.Name) and base.id == "JobKey"
                for base in node.bases
            ):
                for member in node.body:
                    if isinstance(member, ast.Assign):
                        self._note(module, member.value)

    @staticmethod
    def _shown_arguments(node: ast.Call) -> Iterator[ast.expr]:
        name = called(node)
        is_said = (
            name == "emit"
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Attribute)
            and node.func.value.attr in ("said", "refused")
        )
        if name in SHOWERS or name.endswith("Error") or is_said:
            # The second argument of addItem is data, not text.
            yield from node.args[: 1 if name == "addItem" else None]
        for keyword in node.keywords:
            if keyword.arg in SHOWN_KEYWORDS:
                yield keyword.value

    def _note(self, module: Module, value: ast.expr) -> None:
        self.shown.update(filter(is_label, literals(value)))
        for node in ast.walk(value):
            if isinstance(node, ast.Name):
                found = self._constant(module, node.id)
                if found is not None and self._is_text(found[1]):
                    self.shown_constants.add((found[0].name, found[2]))

    @staticmethod
    def _is_text(value: ast.expr) -> bool:
        return any(True for _ in literals(value))

    def _constant(
        self, module: Module, name: str
    ) -> tuple[Module, ast.expr, str] | None:
        """Return where a constant is made, its value and its name there."""
        if name in module.constants:
            return module, module.constants[name], name
        where, original = module.imports.get(name, ("", ""))
        home = self.modules.get(where)
        if home is None or original not in home.constants:
            return None
        return home, home.constants[original], original

    # --- who decides by it --------------------------------------------------------

    def decisions(self) -> list[str]:
        """Return "module:line: code" of every decision made by a text."""
        return [line for name in self.modules for line in self.decisions_in(name)]

    def decisions_in(self, name: str) -> list[str]:
        module = self.modules[name]
        found = []
        for scope in self._scopes(module.tree):
            given = self._given_texts(scope)
            for node in self._inside(scope):
                if self._decides_by_text(module, node, given):
                    code = ast.unparse(node).splitlines()[0]
                    if (name, code) not in DATA:
                        found.append((node.lineno, code))
        return [f"{name}:{line}: {code}" for line, code in sorted(set(found))]

    def _decides_by_text(self, module: Module, node: ast.AST, given: set[str]) -> bool:
        sides = list(self._sides(module, node))
        if any(self._is_read(module, side, given) for side in sides):
            return True
        return (
            module.is_of_windows
            and isinstance(node, ast.Compare)
            and any(isinstance(s, ast.Name) and s.id in TEXT_NAMES for s in sides)
            and any(text for side in sides for text in literals(side))
        )

    @staticmethod
    def _scopes(tree: ast.Module) -> Iterator[ast.AST]:
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
        yield tree
        yield from (node for node in ast.walk(tree) if isinstance(node, kinds))

    @staticmethod
    def _inside(scope: ast.AST) -> Iterator[ast.AST]:
        """Yield the nodes of a function, without those of functions in it."""
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
        waiting = list(ast.iter_child_nodes(scope))
        while waiting:
            node = waiting.pop()
            yield node
            if not isinstance(node, kinds):
                waiting.extend(ast.iter_child_nodes(node))

    def _given_texts(self, scope: ast.AST) -> set[str]:
        """Return the variables of a function that hold a text read back."""
        given: set[str] = set()
        assigned = [n for n in self._inside(scope) if isinstance(n, ast.Assign)]
        for node in sorted(assigned, key=lambda n: n.lineno):
            names = [t.id for t in node.targets if isinstance(t, ast.Name)]
            if names and self._reads_back(node.value, given):
                given.update(names)
        return given

    def _reads_back(self, node: ast.AST, given: set[str]) -> bool:
        """Whether an expression is text from the screen, stripped or cut or not."""
        if isinstance(node, ast.Name):
            return node.id in given
        if isinstance(node, ast.Call):
            if called(node) in READ_BACK and isinstance(node.func, ast.Attribute):
                return True
            cut = ("strip", "rstrip", "lstrip", "lower", "upper", "casefold", "split")
            if called(node) in cut and isinstance(node.func, ast.Attribute):
                return self._reads_back(node.func.value, given)
            return False
        if isinstance(node, ast.Subscript):
            return self._reads_back(node.value, given)
        if isinstance(node, ast.IfExp):
            return self._reads_back(node.body, given)
        return isinstance(node, ast.Attribute) and bool(
            TEXT_ATTRIBUTES.match(node.attr)
        )

    def _is_read(self, module: Module, node: ast.AST, given: set[str]) -> bool:
        """Whether an expression is, or holds, something that people read."""
        if self._reads_back(node, given):
            return module.is_of_windows or not isinstance(node, ast.Attribute)
        if isinstance(node, ast.Name):
            found = self._constant(module, node.id)
            return found is not None and self._holds_text(found[0], found[1])
        if isinstance(node, ast.Subscript):
            return self._is_read(module, node.value, given)
        return self._holds_text(module, node)

    def _holds_text(self, module: Module, node: ast.AST) -> bool:
        if isinstance(node, ast.Dict):
            return any(self._holds_text(module, value) for value in node.values)
        texts = list(literals(node))
        if any(is_sentence(text) for text in texts):
            return True
        return module.is_of_windows and any(text in self.shown for text in texts)

    def _sides(self, module: Module, node: ast.AST) -> Iterator[ast.AST]:
        """Yield what a node decides by, if it decides."""
        if isinstance(node, ast.Compare):
            yield from (node.left, *node.comparators)
        elif isinstance(node, ast.Call):
            yield from self._sides_of_call(node)
        elif isinstance(node, ast.Subscript):
            yield node.slice
        elif isinstance(node, ast.Dict) and module.is_of_windows:
            yield from (key for key in node.keys if key is not None)
        elif isinstance(node, ast.Match):
            patterns = (p for case in node.cases for p in ast.walk(case.pattern))
            yield node.subject
            yield from (p.value for p in patterns if isinstance(p, ast.MatchValue))

    @staticmethod
    def _sides_of_call(node: ast.Call) -> Iterator[ast.AST]:
        name, function = called(node), node.func
        if name in FINDERS:
            yield ast.Constant("A text that is searched for.")
        if not isinstance(function, ast.Attribute):
            return
        is_pattern = isinstance(function.value, ast.Name) and function.value.id == "re"
        if name in SEARCHES:
            if (
                isinstance(function.value, ast.Attribute)
                and function.value.attr in PROSE
            ):
                yield ast.Constant("A text that is searched.")
            yield function.value
            yield from node.args
        elif name in LOOK_UPS:
            yield from node.args[:1]
        elif name in PATTERNS:
            yield from node.args if is_pattern else node.args[:1]


# --- the finder itself ----------------------------------------------------------------

WORDS = """
FITTING = "Fitting…"
RUN = "Run"
OPEN_BUNDLE = "+ open bundle…"
LOOKING = "The slide's stain is being looked at: a moment."
TIPS = {"save": "Keep what was taught."}
"""
SHOWING = """
from napari_histodistill.widgets.planted import FITTING, RUN, OPEN_BUNDLE, LOOKING
self.button.setText(RUN)
self.panel.say(FITTING)
combo.addItem(OPEN_BUNDLE)
combo.addItem("Auto", "auto")
class PlantedJob(JobKey):
    SEARCH = "Search"
"""
DECIDING = {
    "a button's label": 'if session.run_title == "Run again": start()',
    "a label that is one word": 'if session.action == "Run": start()',
    "the words on the panel": "if self.panel.words.text() == FITTING: stop()",
    "a text said before": "if self.message.text() == self._said: clear()",
    "an entry of a combo": "if combo.itemText(index) == OPEN_BUNDLE: ask()",
    "a sentence kept as a state": "return choice.student_trouble == LOOKING",
    "a constant, whatever it meets": "return choice.state != FITTING",
    "a job's title": 'if name in ("Search", "Ranking"): drop()',
    "the key of a job": 'self.pump.abandon(*jobs); jobs.index("Search")',
    "the beginning of a sentence": 'ok = source.startswith("Typed by the user")',
    "a word in a source": 'typed = self.mpp.source.startswith("typed")',
    "the end of a text": 'ok = self.words.text().endswith("s")',
    "a pattern": 're.match("Stored map from", message)',
    "an entry found by its text": "combo.setCurrentIndex(combo.findText(name))",
    "a dictionary by text": "act = ACTIONS[button.text()]",
    "a dictionary by label": 'act = {"Run": go, "Auto": wait}[key]',
    "a look-up": "act = ACTIONS.get(self.sender().text())",
    "a match statement": "match box.currentText():\n    case 'x': go()",
    "a variable that holds it": "said = box.currentText().strip()\nif said == x: go()",
    "a parameter of that name": "f = lambda text: box.setChecked(text == 'yes')",
    "a title": "if job.title != other: stop()",
}
INNOCENT = {
    "a type": "if session.run_action is RunAction.DONE: start()",
    "napari's mode": 'if layer.mode == "pan_zoom": pass',
    "a key of a file": 'steps = [e for e in events if e["kind"] == "step"]',
    "data of a combo": 'if combo.currentData() == "auto": pass',
    "whether there is a reason": "if session.why_not_run: return",
    "a reason passed on": "explain(button, TIP, session.why_not_run)",
    "text that is only set": "label.setText(FITTING)",
    "names as data": "same = [p.name for p in a] == [p.name for p in b]",
}


def decided(code: str, name: str = "napari_histodistill.widgets.deciding") -> list[str]:
    planted = [
        Module.parse("napari_histodistill.widgets.planted", WORDS),
        Module.parse(name, SHOWING + textwrap.dedent(code)),
    ]
    return Finder(planted).decisions_in(name)


@pytest.mark.parametrize("code", DECIDING.values(), ids=DECIDING.keys())
def test_a_decision_by_text_is_found(code):
    assert len(decided(code)) >= 1


@pytest.mark.parametrize("code", INNOCENT.values(), ids=INNOCENT.keys())
def test_what_steers_by_types_passes(code):
    assert decided(code) == []


def test_sentences_are_found_below_the_window_too():
    below = "napari_histodistill.maps.planted"
    assert decided('if error == "The file is damaged.": pass', below)
    assert not decided('if text == "yes": pass', below), "a parser's text is data"


# --- the package ----------------------------------------------------------------------


def test_no_code_decides_by_what_people_read():
    finder = Finder(modules_of(SRC))
    assert len(finder.shown) > 500, "the finder has gone blind"
    assert finder.decisions() == []


def test_what_is_excused_is_there():
    code = {module.name: ast.unparse(module.tree) for module in modules_of(SRC)}
    gone = [(name, line) for name, line in DATA if line not in code.get(name, "")]
    assert not gone
