"""Hard negatives beside other files, with options, and together with the other quick wins."""

import mining_helpers as mining
import pytest
from helpers import place_runtime

from quickwins_codemod import pipeline
from quickwins_codemod.settings import Settings
from quickwins_codemod.transform import all_transforms

torch = pytest.importorskip("torch")

MODEL = """\
import torch
from torch import nn


class Factors(nn.Module):
    def __init__(self, num_users, num_items, width=8):
        super().__init__()
        self.users = nn.Embedding(num_users, width)
        self.items = nn.Embedding(num_items, width)

    def forward(self, users, items):
        return (self.users(users) * self.items(items)).sum(-1)
"""
DATA = """\
import random
from torch.utils.data import Dataset


class Pairs(Dataset):
    def __init__(self, users, items):
        self.users, self.items = users, items

    def __len__(self):
        return len(self.users)

    def __getitem__(self, index):
        return self.users[index], self.items[index], random.randrange(50)
"""
LOOP = """\
for epoch in range(3):
    for user, positive, negative in loader:
        optimizer.zero_grad()
        loss = nn.functional.softplus(model(user, negative) - model(user, positive)).mean()
        loss.backward()
        optimizer.step()
"""
TRAIN = f"""\
import torch
from torch import nn
from models import Factors
from torch.utils.data import DataLoader
from data import Pairs

torch.manual_seed(0)
users, items = torch.randint(0, 20, (240,)), torch.randint(0, 50, (240,))
loader = DataLoader(Pairs(users, items), batch_size=60, shuffle=True)
model = Factors(20, 50)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

{LOOP}"""
RATINGS = (mining.PAIRS / "rating_loop.in.py").read_text()


@pytest.fixture
def beside(tmp_path):
    (tmp_path / "models.py").write_text(MODEL)
    (tmp_path / "data.py").write_text(DATA)
    return tmp_path


def test_model_and_dataset_are_followed_into_other_files(beside):
    outcome = mining.look_at(TRAIN, beside)

    assert mining.codes(outcome, "applied") == ["QW201"], mining.said(outcome)
    record = mining.train(beside / "train.py")
    (beside / "train.py").write_bytes(outcome.after)
    after = mining.train(beside / "train.py", place_runtime(beside))
    assert len(after.mined) == after.steps == record.steps == 12


def test_a_dataset_that_nobody_can_see_is_not_taken_for_one_that_draws(beside):
    (beside / "data.py").unlink()
    outcome = mining.look_at(TRAIN, beside)

    assert mining.codes(outcome) == ["QW213"]


def test_options_that_are_set_are_written_out_and_others_are_not(tmp_path):
    plain = mining.look_at(RATINGS, tmp_path).after.decode()
    assert 'HardNegatives(train_loader, positives="all", scale=20.0)' in plain
    assert "(loss + 0.3 * ranking_loss).backward()" in plain

    outcome = mining.look_at(
        RATINGS, tmp_path, pool_size=4, top_share=0.5, random_share=0.1, warmup_steps=9,
        warmup_auc=0.6, ranking_weight=0.1, ranking_scale=10.0, positives="liked",
    )
    made = " ".join(outcome.after.decode().split())
    for argument in (
        "pool_size=4", "top_share=0.5", "random_share=0.1", "warmup_steps=9", "warmup_auc=0.6",
    ):  # fmt: skip
        assert argument in made
    assert 'positives="liked", scale=10.0' in made
    assert "(loss + 0.1 * ranking_loss).backward()" in made


@pytest.mark.parametrize("pool_size", [1, 4, 8])
def test_the_pool_s_size_reaches_the_model(pool_size, tmp_path, capsys):
    """Rows that the model scores without gradient: pool_size for each of the batch."""
    place_runtime(tmp_path)
    source = (mining.PAIRS / "bpr_in_loop.in.py").read_text()
    counting = source.replace("    def forward(self, users, items):\n", (
        "    def forward(self, users, items):\n"
        "        if not torch.is_grad_enabled() and not self.training:\n"
        "            SCORED.append(len(items))\n"
    )).replace("NUM_USERS, NUM_ITEMS", "SCORED = []\nNUM_USERS, NUM_ITEMS", 1) + (
        "\nprint('scored', max(SCORED, default=0), model.training)\n"
    )
    outcome = mining.look_at(counting, tmp_path, pool_size=pool_size)
    (tmp_path / "train.py").write_bytes(outcome.after)
    mining.train(tmp_path / "train.py", tmp_path)
    _, scored, training = capsys.readouterr().out.split()

    assert training == "True", "the model's mode is what it was"
    if pool_size > 1:
        assert 60 * (pool_size - 1) <= int(scored) <= 60 * (pool_size + 1)


def test_the_objective_of_a_regression_can_be_left_alone(tmp_path):
    """--ignore QW202 drops the ranking term, with every edit that belongs to it."""
    rules = {t.rule: t.options_type() for t in all_transforms()}
    settings = Settings(rules=rules, select=("hard-negatives",), ignore=("QW202",))
    path = tmp_path / "train.py"
    path.write_text(RATINGS)
    context = pipeline.Context(tmp_path.resolve(), tmp_path.resolve(), settings)
    outcome = pipeline.process(path.resolve(), context)

    assert outcome is None or outcome.after is None


@pytest.mark.parametrize("name", ["rating_loop", "bpr_in_loop", "rating_accumulated"])
def test_all_quick_wins_at_once_train_and_leave_nothing_to_do(name, tmp_path, monkeypatch, capsys):
    select = ("onecycle", "hard-negatives", "amp")
    source = (mining.PAIRS / f"{name}.in.py").read_text()
    source = source.replace("model = ", 'device = torch.device("cpu")\nmodel = ', 1)
    for variable in ("user_ids", "user", "users"):
        source = source.replace(f"model({variable}, ", f"model({variable}.to(device), ")
    outcome = mining.look_at(source, tmp_path, select)
    assert {v.rule for v in outcome.verdicts if v.status == "applied"} == set(select), mining.said(outcome)
    again = mining.look_at(outcome.after, tmp_path, select)
    assert again.after is None, again.diff()

    (tmp_path / "train.py").write_bytes(outcome.after)
    text = outcome.after.decode()
    under_autocast = text[text.index("with autocast"):text.index("scaler.scale(")]
    if "rating" in name:
        assert "ranking_loss = " in under_autocast
    for precision in ("off", "fp16", "bf16"):
        monkeypatch.setenv("QUICKWINS_AMP", precision)
        record = mining.train(tmp_path / "train.py", place_runtime(tmp_path))
        assert len(record.mined) + len(record.ranked) >= record.steps > 0
        assert all(bool(torch.isfinite(p).all()) for p in record.parameters)


@pytest.mark.parametrize("first, second", [("hard-negatives", "amp"), ("amp", "hard-negatives")])
def test_one_quick_win_after_the_other_gives_what_both_at_once_do(first, second, tmp_path):
    source = RATINGS.replace("model = ", 'device = torch.device("cpu")\nmodel = ', 1).replace(
        "model(user_ids, item_ids)", "model(user_ids.to(device), item_ids.to(device))"
    )
    both = mining.look_at(source, tmp_path, ("hard-negatives", "amp")).after.decode()
    one = mining.look_at(source, tmp_path, (first,)).after
    other = mining.look_at(one, tmp_path, (second,)).after.decode()

    def lines(text):
        return [line for line in text.splitlines() if line.strip() and "import" not in line]

    assert sorted(lines(other)) == sorted(lines(both))


BOTH = """\
class Other(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.users, self.items = nn.{0}, nn.{0}

    def forward(self, users, items):
        return (self.users(users) * self.items(items)).sum(-1)


def train(model):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(3):
        for user, positive in loader:
            negative = torch.randint(0, 50, user.shape)
            loss = nn.functional.softplus(model(user, negative) - model(user, positive)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


train(Factors(20, 50))
train(Other())
"""


@pytest.mark.parametrize("table, expected", [("Embedding(50, 8)", ["QW201"]), ("Linear(8, 8)", [])])
def test_a_model_of_several_classes_is_one_only_where_all_take_the_same(table, expected, tmp_path):
    """Whichever is looked at first: the analysis keeps them in a set."""
    data = "from torch.utils.data import DataLoader\nloader = DataLoader(dataset, batch_size=60)\n"
    source = MODEL + data + BOTH.format(table)
    for _ in range(8):
        outcome = mining.look_at(source, tmp_path)
        assert mining.codes(outcome, "applied") == expected, mining.said(outcome)


COLUMNS = (mining.PAIRS / "bce_columns.in.py").read_text()


@pytest.mark.parametrize(
    ("order", "labelled", "filled", "expected"),
    [
        ("positive.unsqueeze(1), negative", "labels[:, 0] = 1.0", "zeros", ["QW201"]),
        ("positive.unsqueeze(1), negative", "labels[..., 0] = 1.0", "zeros", ["QW201"]),
        ("negative, positive.unsqueeze(1)", "labels[:, -1] = 1.0", "zeros", ["QW201"]),
        ("negative, positive.unsqueeze(1)", "labels[:, 0] = 1.0", "zeros", ["QW211"]),
        ("positive.unsqueeze(1), negative", "labels[:, -1] = 1.0", "zeros", ["QW211"]),
        ("positive.unsqueeze(1), negative", "labels[:, 1] = 1.0", "zeros", ["QW211"]),
        ("positive.unsqueeze(1), negative", "labels[0] = 1.0", "zeros", ["QW211"]),
        ("positive.unsqueeze(1), negative", "labels[:, 1:] = 0.0", "ones", ["QW201"]),
        ("positive.unsqueeze(1), negative", "labels[:, 0] = 0.0", "ones", ["QW211"]),
        ("positive.unsqueeze(1), negative", "labels[:, 0] = weight", "zeros", ["QW201"]),
        ("positive.unsqueeze(1), negative", "labels[:, 1:] = weight", "ones", ["QW211"]),
    ],
)
def test_labels_that_are_set_by_column_show_what_is_a_negative(
    order, labelled, filled, expected, tmp_path
):
    source = COLUMNS.replace("labels[:, 0] = 1.0", labelled).replace("torch.zeros(", f"torch.{filled}(")
    source = source.replace("positive.unsqueeze(1), negative", order)
    outcome = mining.look_at(source, tmp_path)

    assert mining.codes(outcome, "applied", "refused") == expected


@pytest.mark.parametrize(
    ("order", "labelled", "filled", "expected"),
    [
        ("positive, negative", "labels[: len(user)] = 1.0", "zeros", ["QW201"]),
        ("positive, negative", "labels[len(user) :] = 0.0", "ones", ["QW201"]),
        ("negative, positive", "labels[len(user) :] = 1.0", "zeros", ["QW201"]),
        ("negative, positive", "labels[: len(user)] = 1.0", "zeros", ["QW211"]),
        ("positive, negative", "labels[::2] = 1.0", "zeros", ["QW211"]),
        ("positive, negative", "labels[: len(user)] = 1.0; labels[3] = 0.0", "zeros", ["QW211"]),
    ],
)
def test_labels_that_are_set_by_rows_do_too(order, labelled, filled, expected, tmp_path):
    source = COLUMNS.replace("(len(user), NUM_NEGATIVES)", "(len(user),)")
    source = source.replace("torch.cat([positive.unsqueeze(1), negative], dim=1)", f"torch.cat([{order}])")
    source = source.replace("labels[:, 0] = 1.0", labelled).replace("torch.zeros(", f"torch.{filled}(")
    source = source.replace("user.repeat_interleave(candidates.size(1))", "torch.cat([user, user])")
    outcome = mining.look_at(source, tmp_path)

    assert mining.codes(outcome, "applied", "refused") == expected


def test_an_argument_that_is_set_below_the_draw_is_not_read_above_it(tmp_path):
    """Here, too, where the loop stands in the module and not in a function."""
    body = "".join(f"    {line}\n" if line else "\n" for line in COLUMNS.splitlines()[24:])
    inside = "\n".join(COLUMNS.splitlines()[:24]) + "\n\n\ndef main():\n" + body + "\n\nmain()\n"
    for source in (COLUMNS, inside):
        made = mining.look_at(source, tmp_path).after.decode()
        assert "mine(model, user, negative, positives=positive)" in made
