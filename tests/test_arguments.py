"""Where the `--tag` option goes: scripts are edited, run with `--tag`, and the value looked at."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import libcst as cst
import pytest

from quickwins_codemod.edits import InsertAfter, InsertBefore
from quickwins_codemod.rewriting import apply_edits
from quickwins_codemod.script.arguments import TagOption, TagPlan
from quickwins_codemod.script.facts import Script
from quickwins_codemod.script.neighbours import Neighbours
from quickwins_codemod.script.reading import read
from quickwins_codemod.selfcheck import stray_line

# In each of these scripts the tag is asked for above the loop over epochs, where a comment says how
# it is to be written there. A + is before the lines that the plan adds, a - before those that go.
ADDED = {
    "in main": """\
 import argparse

 def main():
     parser = argparse.ArgumentParser(description="train")
     parser.add_argument("--epochs", type=int, default=1,
                         help="number of epochs")
     parser.add_argument("--wandb-tags", nargs="+",
                         help="tags")  # of wandb
+    parser.add_argument("--tag", default=None, help="name of this run in quickwins compare")
     args = parser.parse_args()

     # tag: args.tag
     for epoch in range(args.epochs):
         pass

 main()
""",
    "at module level, single quotes, tabs": """\
 from argparse import ArgumentParser
 if __name__ == '__main__':
 \tparser = ArgumentParser()
 \tparser.add_argument('--lr', type=float)
+\tparser.add_argument('--tag', default=None, help='name of this run in quickwins compare')

 \topt = parser.parse_args()
 \t# tag: opt.tag
 \tfor epoch in range(2):
 \t\tpass
""",
    "returned by a function and handed to the one that trains": """\
 import argparse

 def parse_args():
     parser = argparse.ArgumentParser()
     parser.add_argument('--epochs', type=int, default=1)

     # wandb
     parser.add_argument('--offline', action='store_true')
+    parser.add_argument('--tag', default=None, help='name of this run in quickwins compare')

     return parser.parse_args()

 def train(config):
     # tag: config.tag
     for epoch in range(config.epochs):
         pass

 def main():
     args = parse_args()
     train(args)

 main()
""",
    "the parser comes from a helper": """\
 import argparse

 def build_parser():
     p = argparse.ArgumentParser()
     p.add_argument("--epochs", type=int, default=1)
+    p.add_argument("--tag", default=None, help="name of this run in quickwins compare")
     return p

 args = build_parser().parse_args()
 # tag: args.tag
 for epoch in range(args.epochs):
     pass
""",
    "a helper adds the options": """\
 import argparse

 def add_options(parser):
     parser.add_argument("--epochs", type=int, default=1)
     return parser

 def main():
     parser = argparse.ArgumentParser()
+    parser.add_argument("--tag", default=None, help="name of this run in quickwins compare")
     args = add_options(parser).parse_args()
     # tag: args.tag
     for epoch in range(args.epochs):
         pass

 main()
""",
    "stored in self, trained in a method": """\
 import argparse

 class Trainer:
     def __init__(self, args):
         self.args = args

     def fit(self):
         # tag: self.args.tag
         for epoch in range(self.args.epochs):
             pass

 if __name__ == "__main__":
     parser = argparse.ArgumentParser()
     parser.add_argument("--epochs", type=int, default=1)
+    parser.add_argument("--tag", default=None, help="name of this run in quickwins compare")
     Trainer(parser.parse_args()).fit()
""",
    "the parser in self": """\
 import argparse

 class Options:
     def __init__(self):
         self.p = argparse.ArgumentParser()
         self.p.add_argument("--epochs", type=int, default=1)
+        self.p.add_argument("--tag", default=None, help="name of this run in quickwins compare")

     def parse(self):
         self.options = self.p.parse_args()
         return self.options

 opts = Options().parse()
 # tag: opts.tag
 for epoch in range(opts.epochs):
     pass
""",
    "groups": """\
 import argparse
 parser = argparse.ArgumentParser()
 parser.add_argument("--seed", type=int)
 group = parser.add_argument_group("training")
 group.add_argument("--epochs", type=int, default=1)
 either = group.add_mutually_exclusive_group()
 either.add_argument("--fast", action="store_true")
+parser.add_argument("--tag", default=None, help="name of this run in quickwins compare")
 args = parser.parse_args()
 # tag: args.tag
 for epoch in range(args.epochs):
     pass
""",
    "the last option under a condition": """\
 import argparse, sys
 parser = argparse.ArgumentParser()
 parser.add_argument("--epochs", type=int, default=1)
+parser.add_argument("--tag", default=None, help="name of this run in quickwins compare")
 if sys.platform == "nowhere":
     parser.add_argument("--never")
 args = parser.parse_args()
 # tag: args.tag
 for epoch in range(args.epochs):
     pass
""",
    "known options only, in a pair": """\
 import argparse
 parser = argparse.ArgumentParser()
 parser.add_argument("--epochs", type=int, default=1)
+parser.add_argument("--tag", default=None, help="name of this run in quickwins compare")
 args, _ = parser.parse_known_args()
 # tag: args.tag
 for epoch in range(args.epochs):
     pass
""",
    "known options first, then all": """\
 import argparse
 parser = argparse.ArgumentParser()
 parser.add_argument("--model", default="a")
+parser.add_argument("--tag", default=None, help="name of this run in quickwins compare")
 args = parser.parse_known_args()[0]
 parser.add_argument("--epochs", type=int, default=1)
 args = parser.parse_args()
 # tag: args.tag
 for epoch in range(args.epochs):
     pass
""",
    "as a dict": """\
 import argparse
 parser = argparse.ArgumentParser()
 parser.add_argument('--epochs', type=int, default=1)
+parser.add_argument('--tag', default=None, help='name of this run in quickwins compare')
 args = vars(parser.parse_args())
 # tag: args['tag']
 for epoch in range(args['epochs']):
     pass
""",
    "__dict__": """\
 import argparse
 parser = argparse.ArgumentParser()
 parser.add_argument('--epochs', type=int, default=1)
+parser.add_argument('--tag', default=None, help='name of this run in quickwins compare')
 args = parser.parse_args().__dict__
 # tag: args['tag']
 for epoch in range(args['epochs']):
     pass
""",
    "a global that the function reads": """\
 import argparse
 parser = argparse.ArgumentParser()
 parser.add_argument("--epochs", type=int, default=1)
+parser.add_argument("--tag", default=None, help="name of this run in quickwins compare")
 args = parser.parse_args()

 def train():
     # tag: args.tag
     for epoch in range(args.epochs):
         pass

 train()
""",
    "a function that passes on what it was given": """\
 import argparse

 def setup(options):
     options.ready = True
     return options

 def main(args=None):
     parser = argparse.ArgumentParser()
     parser.add_argument("--epochs", type=int, default=1)
+    parser.add_argument("--tag", default=None, help="name of this run in quickwins compare")
     args = parser.parse_args(args)
     args = setup(args)
     # tag: args.tag
     for epoch in range(args.epochs):
         pass

 main()
""",
    "two parsers, the one with the options": """\
 import argparse
 first = argparse.ArgumentParser(add_help=False)
 first.add_argument("--config")
 known, rest = first.parse_known_args()
 parser = argparse.ArgumentParser()
 parser.add_argument("--epochs", type=int, default=1)
 parser.add_argument("--lr", type=float)
+parser.add_argument("--tag", default=None, help="name of this run in quickwins compare")
 args = parser.parse_args(rest)
 # tag: args.tag
 for epoch in range(args.epochs):
     pass
""",
    "no abbreviations": """\
 import argparse
 parser = argparse.ArgumentParser(allow_abbrev=False)
 parser.add_argument("--tags", nargs="*")
+parser.add_argument("--tag", default=None, help="name of this run in quickwins compare")
 args = parser.parse_args()
 # tag: args.tag
 for epoch in range(2):
     pass
""",
    "the parser handed to what parses": """\
 import argparse

 def more(parser):
     parser.add_argument("--epochs", type=int, default=1)

 def parsed(parser):
     return parser.parse_args()

 parser: argparse.ArgumentParser = argparse.ArgumentParser()
 parser.add_argument("--lr")
+parser.add_argument("--tag", default=None, help="name of this run in quickwins compare")
 more(parser)
 args = parsed(parser)
 parser.add_argument("--late")
 # tag: args.tag
 for epoch in range(args.epochs):
     pass
""",
    "no option yet": """\
 import argparse
 parser = argparse.ArgumentParser()
+parser.add_argument("--tag", default=None, help="name of this run in quickwins compare")
 args = parser.parse_args()
 # tag: args.tag
 for epoch in range(2):
     pass
""",
    "one after the other on a line": """\
 import argparse
 p = argparse.ArgumentParser()
-p.add_argument("--a"); p.add_argument("--b"); args = p.parse_args()
+p.add_argument("--a"); p.add_argument("--b"); p.add_argument("--tag", default=None, \
help="name of this run in quickwins compare"); args = p.parse_args()
 # tag: args.tag
 for epoch in range(2):
     pass
""",
    "handed to another process": """\
 import argparse

 def run(function, *arguments):
     function(*arguments)

 def worker(rank, args):
     # tag: getattr(args, "tag", None)
     for epoch in range(args.epochs):
         pass

 parser = argparse.ArgumentParser()
 parser.add_argument("--epochs", type=int, default=1)
 parser.add_argument("--spawn", action="store_true")
+parser.add_argument("--tag", default=None, help="name of this run in quickwins compare")
 args = parser.parse_args()
 if args.spawn:
     run(worker, 0, args)
 else:
     worker(0, args)
""",
    "keywords of a function that takes any": """\
 import argparse, types

 def note(**options):
     return options

 parser = argparse.ArgumentParser()
 parser.add_argument("--epochs", type=int, default=1)
+parser.add_argument("--tag", default=None, help="name of this run in quickwins compare")
 args = parser.parse_args()
 note(**vars(args)), types.SimpleNamespace(**vars(args)), "{epochs}".format(**vars(args))
 options = vars(args)
 print({**options}, complex(**{"real": options["epochs"]}), dict.fromkeys(options))
 # tag: args.tag
 for epoch in range(args.epochs):
     pass
""",
    "a --tag that is there": """\
 import argparse
 parser = argparse.ArgumentParser()
 parser.add_argument("--tag", type=str, default="", help="tag of the experiment")
 args = parser.parse_args()
 print(args.tag)
 # tag: args.tag
 for epoch in range(2):
     pass
""",
    "a --tag under another name": """\
 import argparse
 parser = argparse.ArgumentParser()
 parser.add_argument("-n", "--run-name", "--tag")
 args = parser.parse_args()
 # tag: args.run_name
 for epoch in range(2):
     pass
""",
    "click": """\
 import click

 @click.command()
 @click.option('--epochs', default=1)
 @click.option('--lr',
               default=0.1)  # of Adam
+@click.option('--tag', default=None, help='name of this run in quickwins compare')
-def main(epochs, lr):
+def main(epochs, lr, tag=None):
     # tag: tag
     for epoch in range(epochs):
         pass

 main(standalone_mode=False)
""",
    "click, names imported, any keyword": """\
 from click import command, option

 @command()
 @option("--epochs", default=1)
+@option("--tag", default=None, help="name of this run in quickwins compare")
-def main(**options):
+def main(tag=None, **options):
     # tag: tag
     for epoch in range(options["epochs"]):
         pass

 main(standalone_mode=False)
""",
    "click, in a group": """\
 import click

 @click.group()
 def cli():
     pass

 @cli.command("go")
 @click.pass_context
 @click.option("--epochs", default=1)
+@click.option("--tag", default=None, help="name of this run in quickwins compare")
 @click.argument("data", required=False)
-def go(context, epochs, data="x"):
+def go(context, epochs, data="x", tag=None):
     # tag: tag
     for epoch in range(epochs):
         pass

 import sys
 cli(["go", *sys.argv[1:]], standalone_mode=False)
""",
    "click, a --tag that is there": """\
 import click

 @click.command()
 @click.option("--tag", "name", type=str, default="", help="name of the run")
 def main(name):
     # tag: name
     for epoch in range(2):
         pass

 main(standalone_mode=False)
""",
}

ARGPARSE = """\
import argparse
parser = argparse.ArgumentParser({make})
parser.add_argument("--epochs", type=int, default=1)
{options}
args = parser.parse_args({line})
{then}
for epoch in range(args.epochs):
    pass
"""
CLICK = """\
import click

@click.command()
{above}
@click.option("--epochs", default=1)
{options}
def main({parameters}):
    {body}
    for epoch in range(2):
        pass
"""


def parsed(options: str = "", make: str = "", line: str = "", then: str = "") -> str:
    return ARGPARSE.format(make=make, options=options, line=line, then=then)


def clicked(
    options: str = "", above: str = "", parameters: str = "epochs", body: str = ""
) -> str:
    return CLICK.format(above=above, options=options, parameters=parameters, body=body)


def plan(source: str, neighbours: Neighbours | None = None) -> tuple[Script, TagPlan | str]:
    """The plan above the loop over epochs, or why there is none."""
    script = read(cst.parse_module(source), neighbours)
    (loop,) = [n for n in script.tree.all(cst.For) if script.tree.code(n.target) == "epoch"]
    frames = script.placing.frames(script.tree.function(loop))
    option = TagOption(script)
    return script, option.plan(frames, script.placing.before(loop), loop) or option.why


def taken_apart(marked: str) -> tuple[str, str, str]:
    """The script, what it becomes, and the expression that it names."""
    lines = marked.splitlines(keepends=True)
    old = "".join(line[1:] or "\n" for line in lines if not line.startswith("+"))
    new = "".join(line[1:] or "\n" for line in lines if not line.startswith("-"))
    return old, new, re.search(r"# tag: (.*)", marked)[1]


def tag_of(
    script: Script, found: TagPlan, arguments: list[str], folder: Path, monkeypatch
) -> object:
    """What the expression is above the loop when the edited script runs."""
    (loop,) = [n for n in script.tree.all(cst.For) if script.tree.code(n.target) == "epoch"]
    note = InsertBefore(loop, f"import builtins; builtins.noted.append({found.expression})\n")
    path = folder / "noted_run.py"
    path.write_text(apply_edits(script.tree, [*found.edits, note]).code)
    noted: list[object] = []
    monkeypatch.setattr("builtins.noted", noted, raising=False)
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    runpy.run_path(str(path), run_name="__main__")
    (value,) = noted
    return value


@pytest.mark.parametrize("case", ADDED)
def test_the_option_is_added_and_its_value_known_above_the_loop(case, tmp_path, monkeypatch):
    old, new, expression = taken_apart(ADDED[case])
    script, found = plan(old)

    assert isinstance(found, TagPlan), found
    assert apply_edits(script.tree, found.edits).code == new
    assert found.expression == expression
    assert stray_line(old, new, script, found.edits) is None
    assert tag_of(script, found, ["--tag", "x"], tmp_path, monkeypatch) == "x"
    assert not tag_of(script, found, [], tmp_path, monkeypatch)


@pytest.mark.parametrize("case", ADDED)
def test_a_script_that_has_the_option_is_left_as_it_is(case):
    _, new, expression = taken_apart(ADDED[case])
    _, found = plan(new.replace(f"# tag: {expression}", f"print({expression})"))

    assert found == TagPlan(expression, ())


# The source, and a word of the reason.
REFUSED = {
    "no parser": ("for epoch in range(2):\n    pass\n", "no options"),
    "options of another file": (
        "from other import args\nfor epoch in range(args.epochs):\n    pass\n", "no options",
    ),
    "a parser without a name": (
        "import argparse\nargs = argparse.ArgumentParser().parse_args()\n"
        "for epoch in range(2):\n    pass\n", "has no name",
    ),
    "not handed on": (
        "import argparse\n\ndef train(epochs):\n    for epoch in range(epochs):\n        pass\n"
        "\nparser = argparse.ArgumentParser()\nargs = parser.parse_args()\ntrain(args.epochs)\n",
        "no options",
    ),
    "read again in the loop": (
        parsed().replace("    pass", "    args = parser.parse_args()"), "does not hold the options",
    ),
    "made anew elsewhere": (parsed(then="args = load(args)"), "something else"),
    "two kinds of thing": (
        parsed(then="args = vars(args)").replace("args.epochs", "2"), "something else",
    ),
    "fixed arguments": (parsed(line='["--epochs", "2"]'), "no command line"),
    "no arguments, by name": (parsed(line="args=[]"), "no command line"),
    "a fixed line": (parsed(line='"--epochs 2".split()'), "no command line"),
    "parents": (parsed(make="parents=[other()]"), "`parents`"),
    "another prefix": (parsed(make='prefix_chars="+"'), "`prefix_chars`"),
    "made with anything": (parsed(make="**words"), r"`\*\*`"),
    "subcommands": (parsed('commands = parser.add_subparsers()'), "subcommands"),
    "several tags": (parsed('parser.add_argument("--tag", nargs="+")'), "not one string"),
    "a switch": (parsed('parser.add_argument("--tag", action="store_true")'), "not one string"),
    "a number": (parsed('parser.add_argument("--tag", type=int)'), "not one string"),
    "who knows": (parsed('parser.add_argument("--tag", **words)'), "not one string"),
    "a tag that may not be there": (
        parsed('if later:\n    parser.add_argument("--tag")'), "under a condition",
    ),
    "an abbreviation": (
        parsed('parser.add_argument("--tags", nargs="+")'), "abbreviation of `--tags`",
    ),
    "the tag of another parser": (
        parsed(
            'parser.add_argument("--lr")\nfirst = argparse.ArgumentParser()\n'
            'first.add_argument("--tag", nargs="*")\nknown, rest = first.parse_known_args()'
        ), "another parser",
    ),
    "dest": (parsed('parser.add_argument("--label", dest="tag")'), "stored as `tag`"),
    "positional": (parsed('parser.add_argument("tag", nargs="?")'), "stored as `tag`"),
    "set_defaults": (parsed('parser.set_defaults(tag="a")'), "stored as `tag`"),
    "computed names": (
        parsed('for name in "ab":\n    parser.add_argument(f"--{name}")'), "not spelled out",
    ),
    "options added in another file": (
        "from other import add_options\n" + parsed("add_options(parser)"),
        "`add_options` may add options",
    ),
    "set by the script": (parsed(then='args.tag = "a"'), "already"),
    "asked for": (parsed(then='print(getattr(args, "tag", "none"))'), "already"),
    "asked for in the dict": (parsed(then='print(vars(args).get("tag"))'), "already"),
    "options of a checkpoint": (parsed(then="args.__dict__ = load()"), "set anew"),
    "all options as keywords": (
        "from other import Model\n" + parsed(then="model = Model(**vars(args))"),
        "`Model` is called with all options",
    ),
    "options that are given as keywords": (
        parsed(then="given = {k: v for k, v in vars(args).items() if v}\nmodel = Model(**given)"),
        "`Model` is called with all options",
    ),
    "typer": (
        "import typer\n\napp = typer.Typer()\n\n@app.command()\ndef main(epochs: int = 2):\n"
        "    for epoch in range(epochs):\n        pass\n", "no options",
    ),
    "click, another decorator": (clicked(above="@profile"), "not click's"),
    "click, no option": (clicked().replace('@click.option("--epochs", default=1)', ""), "no opt"),
    "click, locals()": (clicked(body="train(**locals())"), "`locals` takes all"),
    "click, forwarded": (
        clicked(above="@click.pass_context", parameters="c, epochs", body="c.forward(other)"),
        "`c.forward` takes all",
    ),
    "click, a local tag": (clicked(body="tag = 1"), "`tag` means something"),
    "click, a parameter tag": (
        clicked('@click.option("--run-tag", "tag")', parameters="epochs, tag"),
        "`tag` means something",
    ),
    "click, a tag among any keywords": (
        clicked('@click.option("--run-tag", "tag")', parameters="**words"),
        "`tag` means something",
    ),
    "click, several tags": (
        clicked('@click.option("--tag", multiple=True)', parameters="epochs, tag"),
        "not one string",
    ),
    "click, in a dict": (clicked('@click.option("--tag")', parameters="**words"), "not known"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_none_where_it_cannot_be_shown_to_be_safe(case):
    source, why = REFUSED[case]
    _, found = plan(source)

    assert isinstance(found, str)
    assert re.search(why, found), found


@pytest.mark.parametrize(
    ("other", "expression"),
    [
        ("from train import train\ntrain(options)\n", "getattr(args, 'tag', None)"),
        ("import train as t\nt.train(options)\n", "getattr(args, 'tag', None)"),
        ("def train():  # no word of the other file\n    pass\n", "args.tag"),
    ],
)
def test_a_function_that_another_file_calls_takes_options_without_a_tag(
    other, expression, tmp_path
):
    source = """\
import argparse

def train(args):
    for epoch in range(args.epochs):
        pass

if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--epochs')
    train(parser.parse_args())
"""
    (tmp_path / "train.py").write_text(source)
    (tmp_path / "sweep.py").write_text(other)
    _, found = plan(source, Neighbours(tmp_path / "train.py", [tmp_path], tmp_path))

    assert found.expression == expression


def test_a_decorator_stands_below_another_with_the_line_ends_of_the_file():
    source = "\r\n".join([
        "@one  # first", "# second", "@two(", "    1", ")", "# f", "class A:", "    @one",
        "    def f(self): pass", "",
    ])
    script = read(cst.parse_module(source))
    outer, _, inner = sorted(script.tree.all(cst.Decorator), key=script.tree.position)
    edits = [InsertAfter(outer, "@new(1)"), InsertAfter(inner, "@new(2)")]
    new = apply_edits(script.tree, edits).code

    assert new == source.replace("@one  # first\r\n", "@one  # first\r\n@new(1)\r\n").replace(
        "    @one\r\n", "    @one\r\n    @new(2)\r\n"
    )
    assert stray_line(source, new, script, edits) is None


SHARED = """\
def add_options(parser):
    parser.add_argument("--lr", type=float, default=0.1)
    {}
"""
SHARING = "from shared import add_options\n" + parsed("add_options(parser)")


@pytest.mark.parametrize(
    "line, known",
    [
        ('parser.add_argument("-s", "--seed", type=int)', True),
        ("return None", True),
        ('parser.add_argument("--tag")', False),
        ('parser.add_argument("--tags", nargs="+")', False),
        ('parser.add_argument("--label", dest="tag")', False),
        ('parser.add_argument("--label", **words)', False),
        ("parser.add_argument(NAME)", False),
        ("parser.add_subparsers()", False),
        ("more(parser)", False),
        ("parser = other(", False),
    ],
)
def test_options_added_by_a_function_of_the_repository_are_read(tmp_path, line, known, monkeypatch):
    (tmp_path / "shared.py").write_text(SHARED.format(line))
    (tmp_path / "train.py").write_text(SHARING)
    neighbours = Neighbours(tmp_path / "train.py", [tmp_path], tmp_path)
    script, found = plan(SHARING, neighbours)

    assert isinstance(found, TagPlan) == known, found
    if known:
        monkeypatch.syspath_prepend(tmp_path)
        sys.modules.pop("shared", None)
        assert tag_of(script, found, ["--tag", "x"], tmp_path, monkeypatch) == "x"
    else:
        assert "`add_options` may add options" in found
