"""Shapes are recognised, not names or layout: another spelling of a script gets the same verdicts."""

import ast
import io
import tokenize

import helpers
import pytest
import renamer

PAIRS = sorted(helpers.PAIRS.glob("*.in.py"))
REFUSED = sorted(helpers.REFUSED.glob("*.py"))
SCRIPTS = sorted(helpers.SAMPLE.rglob("train_with_wandb.py"))
SOURCES = [*PAIRS, *REFUSED, *SCRIPTS]
OWN_PEAK = {"own_warmup_class.in.py": [16**-0.5 * 10**-0.5]}
RESUMED = {"checkpoint_resume", "resume_before_the_loader", "resume_with_schedule"}
#: For a layout, the names of sources that it turns into something else, until that is mended.
AWAITED: dict[str, list[str]] = {}


def name(path):
    if path.name == "train_with_wandb.py":
        return path.relative_to(helpers.SAMPLE).parts[0]
    return path.name.removesuffix(".in.py").removesuffix(".py")


def in_layouts(paths):
    for path in paths:
        for layout in LAYOUTS:
            awaited = name(path) in AWAITED.get(layout, ())
            marks = [pytest.mark.xfail(reason="tests-27", strict=True)] if awaited else []
            yield pytest.param(path, layout, id=f"{name(path)}-{layout}", marks=marks)


def verdicts(source, folder):
    outcome = helpers.look_at(source, folder)
    return sorted((v.status, v.code) for v in outcome.verdicts)


def by_black(text, **mode):
    black = pytest.importorskip("black")
    return black.format_str(text, mode=black.Mode(**mode))


def dense(text):
    """No comments, no blank lines, lines as long as they get, and short statements side by side."""
    text = by_black(text, line_length=400, magic_trailing_comma=False)
    lines, inside = text.split("\n"), set()
    for token in list(tokenize.generate_tokens(io.StringIO(text).readline)):
        (row, column), (last, _) = token.start, token.end
        if token.type == tokenize.COMMENT:
            lines[row - 1] = lines[row - 1][:column].rstrip()
        elif token.type == tokenize.STRING:
            inside |= set(range(row, last))  # a blank line in a docstring belongs to it
    kept = [line for number, line in enumerate(lines) if line.strip() or number in inside]
    text = "\n".join(kept) + "\n"
    lines, simple = text.split("\n"), set()
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.stmt)
            and not hasattr(node, "body")
            and node.lineno == node.end_lineno
        ):
            if node.col_offset == len(lines[node.lineno - 1]) - len(
                lines[node.lineno - 1].lstrip()
            ):
                simple.add(node.lineno)
    packed = []
    for number, line in enumerate(lines, 1):
        indent = len(line) - len(line.lstrip())
        above = packed[-1] if packed else ("", 0, False)
        if number in simple and above[2] and above[1] == indent and len(above[0]) < 100:
            packed[-1] = (f"{above[0]}; {line.strip()}", indent, True)
        else:
            packed.append((line, indent, number in simple))
    return "\n".join(line for line, *_ in packed)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_other_names_get_the_same_verdicts_and_a_complete_rewrite(path, tmp_path):
    text = path.read_text("utf-8")
    other = renamer.renamed(text)

    assert other.count("name_") > 5
    assert verdicts(other, tmp_path) == verdicts(text, tmp_path)
    if path not in REFUSED:
        helpers.assert_complete(other, tmp_path)


@pytest.mark.parametrize("path", [p for p in PAIRS if name(p) not in RESUMED], ids=name)
def test_a_script_with_other_names_trains_under_one_cycle(path, tmp_path, capsys):
    outcome = helpers.look_at(renamer.renamed(path.read_text("utf-8")), tmp_path)
    script = helpers.place_runtime(tmp_path) / "train.py"
    script.write_text(helpers.new_text(outcome))
    record = helpers.train(script, tmp_path)

    assert record.trained
    for run in record.trained:
        complete = not {"QW150", "QW151"} & set(helpers.codes(outcome, "warning"))
        peaks = OWN_PEAK.get(path.name)
        helpers.assert_one_cycle(run, peaks, complete, helpers.factor(outcome))


LAYOUTS = {
    "black": lambda text: by_black(text),
    "black, narrow": lambda text: by_black(text, line_length=50),
    "dense": dense,
}


@pytest.mark.parametrize(("path", "layout"), list(in_layouts(SOURCES)))
def test_another_layout_gets_the_same_verdicts_and_the_same_program(path, layout, tmp_path):
    text = path.read_text("utf-8")
    other = LAYOUTS[layout](text)

    assert verdicts(other, tmp_path) == verdicts(text, tmp_path)
    if path not in REFUSED:
        plain = helpers.new_text(helpers.look_at(text, tmp_path))
        rewritten = helpers.new_text(helpers.assert_complete(other, tmp_path))
        assert ast.dump(ast.parse(rewritten)) == ast.dump(ast.parse(plain))


def test_the_renamer_keeps_what_a_script_does(tmp_path, capsys):
    path = tmp_path / "train.py"
    source = (helpers.PAIRS / "trainer_class.in.py").read_text("utf-8")
    path.write_text(renamer.renamed(source))

    assert "Trainer" not in path.read_text() and "scheduler =" not in path.read_text()
    before = helpers.train(helpers.PAIRS / "trainer_class.in.py")
    assert helpers.train(path).as_json() == before.as_json()
