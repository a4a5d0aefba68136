"""OneCycle on shapes that differ in one thing: the schedule, the boundary, the file's bytes, names.

Whole scripts with a story are in fixtures/ (see test_pairs.py); here one small script is bent.
"""

import textwrap

import helpers
import pytest

HEAD = """\
import torch
from torch import nn, optim
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

x = torch.randn(70, 3)
loader = DataLoader(TensorDataset(x, x[:, :1]), batch_size=10)
model = nn.Linear(3, 1)
epochs = 4
"""
OPTIMIZER = "optimizer = optim.SGD(model.parameters(), lr=0.01)\n"
BATCH = """
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(features), target)
        loss.backward()
        optimizer.step()"""


def script(body, optimizer=OPTIMIZER, head=HEAD):
    return head + optimizer + textwrap.dedent(body).replace("\n        BATCH", BATCH)


PLAIN = script("""
for epoch in range(epochs):
    for features, target in loader:
        BATCH
""")


def by_epoch(schedule, step="scheduler.step()"):
    return script(f"""
scheduler = {schedule}

for epoch in range(epochs):
    for features, target in loader:
        BATCH
    {step}
""")


def by_batch(schedule, step="scheduler.step()"):
    return script(f"""
scheduler = {schedule}

for epoch in range(epochs):
    for features, target in loader:
        BATCH
        {step}
""")


@pytest.fixture
def trained(tmp_path):
    """Rewrite a script, run it, and return its one optimizer's run."""

    def run(source, **options):
        outcome = helpers.assert_rewritten(source, tmp_path, **options)
        path = helpers.place_runtime(tmp_path) / "train.py"
        path.write_bytes(outcome.after)
        record = helpers.train(path, tmp_path)
        assert not helpers.recorder.schedule_complaints(record.warnings)
        (only,) = record.trained
        return only

    return run


# -- schedules that are replaced ---------------------------------------------------------------

BY_EPOCH = {
    "StepLR": "lr_scheduler.StepLR(optimizer, step_size=2)",
    "MultiStepLR": "lr_scheduler.MultiStepLR(optimizer, milestones=[1, 3])",
    "ConstantLR": "lr_scheduler.ConstantLR(optimizer, factor=0.5)",
    "LinearLR": "lr_scheduler.LinearLR(optimizer)",
    "ExponentialLR": "lr_scheduler.ExponentialLR(optimizer, gamma=0.9)",
    "PolynomialLR": "lr_scheduler.PolynomialLR(optimizer, total_iters=4)",
    "CosineAnnealingLR": "lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)",
    "CosineAnnealingWarmRestarts": "lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=2)",
    "LambdaLR": "lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9 ** epoch)",
    "MultiplicativeLR": "lr_scheduler.MultiplicativeLR(optimizer, lambda epoch: 0.9)",
    "ReduceLROnPlateau": "lr_scheduler.ReduceLROnPlateau(optimizer)",
}


@pytest.mark.parametrize("schedule", BY_EPOCH)
def test_torchs_schedule_by_epoch_is_replaced(schedule, trained):
    value = "loss.item()" if schedule == "ReduceLROnPlateau" else ""
    climbs = schedule in ("ConstantLR", "LinearLR")
    run = trained(by_epoch(BY_EPOCH[schedule], f"scheduler.step({value})"))
    helpers.assert_one_cycle(run, times=1.0 if climbs else 3.0)


@pytest.mark.parametrize(
    "schedule",
    [
        "lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * len(loader))",
        "lr_scheduler.LambdaLR(optimizer, lr_lambda=lambda step: min(1.0, (step + 1) / 10))",
        "lr_scheduler.PolynomialLR(optimizer, total_iters=28, power=2.0)",
    ],
)
def test_a_schedule_by_batch_keeps_its_step(schedule, tmp_path, trained):
    source = by_batch(schedule)
    text = helpers.new_text(helpers.look_at(source, tmp_path))

    assert text.count("scheduler.step()") == 1
    helpers.assert_one_cycle(trained(source), times=1.0 if "min(1.0" in schedule else 3.0)


def test_cyclic_rates_keep_their_own_peak(trained):
    source = by_batch("lr_scheduler.CyclicLR(optimizer, 1e-4, 0.05, cycle_momentum=False)")

    helpers.assert_one_cycle(trained(source), [0.05])


@pytest.mark.parametrize(
    "whole",
    [
        "lr_scheduler.SequentialLR(optimizer, [warm, main], milestones=[2])",
        "lr_scheduler.ChainedScheduler([warm, main])",
    ],
)
def test_a_composition_goes_with_its_parts(whole, tmp_path, trained):
    source = script(f"""
    warm = lr_scheduler.LinearLR(optimizer, total_iters=2)
    main = lr_scheduler.ExponentialLR(optimizer, gamma=0.9)
    scheduler = {whole}

    for epoch in range(epochs):
        for features, target in loader:
            optimizer.zero_grad()
            nn.functional.mse_loss(model(features), target).backward()
            optimizer.step()
        scheduler.step()
    """)
    text = helpers.new_text(helpers.look_at(source, tmp_path))

    assert "warm" not in text and "main" not in text
    helpers.assert_one_cycle(trained(source), times=1.0)


def test_hugging_faces_schedule_by_batch_is_replaced(tmp_path):
    source = "from transformers import get_linear_schedule_with_warmup\n" + by_batch(
        "get_linear_schedule_with_warmup(optimizer, 10, epochs * len(loader))"
    )
    outcome = helpers.assert_rewritten(source, tmp_path)

    assert helpers.codes(outcome, "applied") == ["QW101"]
    assert "transformers" not in helpers.new_text(outcome)


OWN_BY_BASE = """
class WarmUp(lr_scheduler.LRScheduler):
    def __init__(self, optimizer, steps):
        self.steps = steps
        super().__init__(optimizer)

    def get_lr(self):
        return [rate * min(1.0, (self.last_epoch + 1) / self.steps) for rate in self.base_lrs]

"""
OWN_BY_HAND = """
class WarmUp:
    def __init__(self, optimizer, peak, steps):
        self.optimizer = optimizer
        self.peak = peak
        self.steps = steps
        self.done = 0

    def step(self):
        self.done += 1
        rate = self.peak * min(1.0, self.done / self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

"""


def test_a_class_derived_from_torchs_is_replaced_and_keeps_the_rate_it_climbed_to(trained):
    source = OWN_BY_BASE + by_batch("WarmUp(optimizer, 5)").removeprefix(HEAD + OPTIMIZER)
    helpers.assert_one_cycle(trained(script(source)), times=1.0)


@pytest.mark.parametrize("function", ["warmup", "f"])
def test_a_warm_up_by_a_function_keeps_its_peak_whatever_it_is_called(function, trained):
    source = script(
        f"def {function}(step):\n    return min(1.0, (step + 1) / 10)\n"
        + by_batch(f"lr_scheduler.LambdaLR(optimizer, {function})").removeprefix(HEAD + OPTIMIZER)
    )
    helpers.assert_one_cycle(trained(source), times=1.0)


def test_a_linear_schedule_that_only_falls_is_no_warm_up(trained):
    falling = "lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.1, total_iters=4)"
    helpers.assert_one_cycle(trained(by_epoch(falling)))


def test_a_class_that_sets_rates_by_hand_leaves_its_peak(trained):
    run = trained(
        script(OWN_BY_HAND + by_batch("WarmUp(optimizer, 0.02, 5)").removeprefix(HEAD + OPTIMIZER))
    )

    helpers.assert_one_cycle(run, [0.02])


def test_what_reads_the_schedule_stays(trained, tmp_path):
    source = by_epoch(
        "lr_scheduler.StepLR(optimizer, 2)",
        "scheduler.step(); print(scheduler.get_last_lr(), scheduler.optimizer.param_groups[0]['lr'],"
        " type(scheduler).__name__, scheduler.state_dict())",
    )
    helpers.assert_one_cycle(trained(source))
    text = helpers.new_text(helpers.look_at(source, tmp_path))
    assert "print(scheduler.get_last_lr(), scheduler.optimizer" in text


@pytest.mark.parametrize(
    "value", ["loss", "loss.item()", "float(loss)", "sum([1.0]) / len([1.0])", "epoch + 1"]
)
def test_a_value_for_the_old_step_leaves_nothing_behind(value, tmp_path):
    source = by_epoch("lr_scheduler.ReduceLROnPlateau(optimizer)", f"scheduler.step({value})")
    text = helpers.new_text(helpers.assert_rewritten(source, tmp_path))

    assert text.rstrip().endswith("scheduler.step()")


@pytest.mark.parametrize(
    "test", ["epoch > 1", "scheduler is not None", "isinstance(scheduler, lr_scheduler.StepLR)"]
)
def test_a_test_around_the_old_step_goes_with_it(test, trained, tmp_path):
    source = by_epoch(
        "lr_scheduler.StepLR(optimizer, 2)", f"if {test}:\n        scheduler.step()"
    )
    assert f"if {test}" not in helpers.new_text(helpers.look_at(source, tmp_path))
    helpers.assert_one_cycle(trained(source))


def test_a_statement_that_changes_nothing_of_the_rest_stays_beside_the_step(tmp_path):
    source = by_epoch(
        "lr_scheduler.StepLR(optimizer, 2)",
        "if epoch > 1:\n        print(epoch)\n        scheduler.step()",
    )
    text = helpers.new_text(helpers.assert_rewritten(source, tmp_path))
    assert "    if epoch > 1:\n        print(epoch)\n" in text


# -- optimizers --------------------------------------------------------------------------------

OPTIMIZERS = {
    "plain SGD": "optim.SGD(model.parameters(), lr=0.01)",
    "SGD with momentum": "optim.SGD(model.parameters(), lr=0.01, momentum=0.8, nesterov=True)",
    "a GAN's betas": "optim.Adam(model.parameters(), lr=0.01, betas=(0.5, 0.999))",
    "Adagrad": "optim.Adagrad(model.parameters(), lr=0.01)",
    "Adadelta": "optim.Adadelta(model.parameters(), lr=0.5)",
    "RMSprop": "optim.RMSprop(model.parameters(), lr=0.01)",
    "Rprop": "optim.Rprop(model.parameters(), lr=0.01)",
    "ASGD": "optim.ASGD(model.parameters(), lr=0.01)",
    "Adafactor": "optim.Adafactor(model.parameters(), lr=0.01)",
    "a default rate": "optim.AdamW(model.parameters())",
    "groups": "optim.AdamW([{'params': [model.weight], 'lr': 0.1}, {'params': [model.bias]}])",
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_group_peaks_at_three_times_its_own_rate(optimizer, trained):
    helpers.assert_one_cycle(
        trained(PLAIN.replace(OPTIMIZER, f"optimizer = {OPTIMIZERS[optimizer]}\n"))
    )


def test_momentum_and_betas_stay_as_they_were_set(tmp_path):
    source = PLAIN.replace(OPTIMIZER, "optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.8)\n")
    source += "print('momentum', {group['momentum'] for group in optimizer.param_groups})\n"
    outcome = helpers.assert_rewritten(source, tmp_path)
    path = helpers.place_runtime(tmp_path) / "train.py"
    path.write_bytes(outcome.after + b"assert optimizer.param_groups[0]['momentum'] == 0.8\n")
    helpers.train(path, tmp_path)


def test_the_options_are_written_out_where_a_reviewer_sees_them(tmp_path, trained):
    run = trained(PLAIN, max_lr_factor=2.0, pct_start=0.3, div_factor=10.0)
    text = helpers.new_text(
        helpers.look_at(PLAIN, tmp_path, max_lr_factor=2.0, pct_start=0.3, div_factor=10.0)
    )

    assert "max_lr_factor=2.0" in text and "pct_start=0.3" in text and "div_factor=10.0" in text
    rates = [rate for (rate,) in run.rates]
    assert rates[0] == pytest.approx(0.002) and max(rates) == pytest.approx(0.02, rel=1e-2)
    assert 0.2 < rates.index(max(rates)) / len(rates) < 0.35


def test_a_peak_by_option_beats_the_factor_and_the_old_schedules_own(tmp_path):
    source = by_batch("lr_scheduler.CyclicLR(optimizer, 1e-4, 0.05, cycle_momentum=False)")
    text = helpers.new_text(helpers.look_at(source, tmp_path, max_lr=0.5))

    assert "max_lr=0.5" in text and "max_lr_factor" not in text and "0.05" not in text


# -- how often it steps ------------------------------------------------------------------------

BOUNDARIES = {
    "(i + 1) % 3 == 0": 8,
    "0 == (i + 1) % 3": 8,
    "not (i + 1) % 3": 8,
    "i % 3 == 2": 8,
    "(i + 1) % 3 == 0 or i + 1 == len(loader)": 12,
    "(i + 1) % 3 == 0 or i == len(loader) - 1": 12,
    "i == len(loader) - 1 or (i + 1) % 3 == 0": 12,
    "(i + 1) % 3 == 0 or (i + 1) >= len(loader)": 12,
    "i % 3 == 0": 12,
    "not i % 3": 12,
    "(i + 1) % 1 == 0": 28,
}


@pytest.mark.parametrize("test", BOUNDARIES)
def test_the_number_of_steps_is_exact_for_the_boundary(test, trained):
    if test == "i % 3 == 2":
        test = "i % k == k - 1"
    run = trained(script(f"""
k = 3
for epoch in range(epochs):
    for i, (features, target) in enumerate(loader):
        nn.functional.mse_loss(model(features), target).backward()
        if {test}:
            optimizer.step()
            optimizer.zero_grad()
"""))
    assert len(run.rates) == BOUNDARIES.get(test, 8)
    helpers.assert_one_cycle(run)


@pytest.mark.parametrize(
    ("above", "steps"),
    [("", 9), ("    seen = 0\n", 8)],
    ids=["over all epochs", "set back every epoch"],
)
def test_a_counter_counts_where_it_is_set_back(above, steps, trained):
    run = trained(script(f"""
seen = 0
for epoch in range(epochs):
{above}    for features, target in loader:
        nn.functional.mse_loss(model(features), target).backward()
        seen += 1
        if seen % 3 == 0:
            optimizer.step()
            optimizer.zero_grad()
""").replace("seen = 0\nfor", "for" if above else "seen = 0\nfor"))
    assert len(run.rates) == steps
    helpers.assert_one_cycle(run)


@pytest.mark.parametrize(
    "skip", ["if (i + 1) % 3 != 0:", "if (i + 1) % 3:", "if not (i + 1) % 3 == 0:"]
)
def test_continue_above_the_step_is_accumulation_too(skip, trained):
    run = trained(script(f"""
for epoch in range(epochs):
    for i, (features, target) in enumerate(loader):
        nn.functional.mse_loss(model(features), target).backward()
        {skip}
            continue
        optimizer.step()
        optimizer.zero_grad()
"""))
    assert len(run.rates) == 8
    helpers.assert_one_cycle(run)


EPOCHS = {
    "range(epochs)": 4,
    "range(0, epochs)": 4,
    "range(1, epochs + 1)": 4,
    "range(1, epochs)": 3,
    "range(0, epochs, 2)": 2,
    "range(start, epochs + 1)": 4,
    "range(start, start + epochs)": 4,
    "tqdm(range(epochs))": 4,
    "trange(epochs)": 4,
    "range(int(epochs))": 4,
}


@pytest.mark.parametrize("epochs", EPOCHS)
def test_the_number_of_epochs_is_exact(epochs, trained):
    source = "from tqdm import tqdm, trange\n" + script(f"""
start = 1
for epoch in {epochs}:
    for features, target in loader:
        BATCH
""")
    run = trained(source)
    assert len(run.rates) == EPOCHS[epochs] * 7
    helpers.assert_one_cycle(run)


BATCHES = {
    "features, target in loader": 7,
    "_, (features, target) in enumerate(loader)": 7,
    "_, (features, target) in enumerate(tqdm(loader, total=len(loader)))": 7,
    "_, (features, target) in tqdm(enumerate(loader), total=len(loader))": 7,
    "features, target in list(loader)": 7,
    "(features, target), _ in zip(loader, range(5))": 5,
    "features, target in islice(loader, 3)": 3,
    "features, target in [(x, x[:, :1]), (x, x[:, :1])]": 2,
}


@pytest.mark.parametrize("batches", BATCHES)
def test_the_number_of_batches_is_exact(batches, trained):
    source = "from itertools import islice\nfrom tqdm import tqdm\n" + script(f"""
for epoch in range(epochs):
    for {batches}:
        BATCH
""")
    run = trained(source)
    assert len(run.rates) == BATCHES[batches] * 4
    helpers.assert_one_cycle(run)


@pytest.mark.parametrize(
    ("place", "test", "steps"),
    [
        ("above", "i >= 5", 5),
        ("above", "i == 5", 5),
        ("above", "i > 5", 6),
        ("below", "i >= 5", 6),
        ("below", "i + 1 >= 5", 5),
        ("above", "i >= 50", 7),
    ],
)
def test_a_break_after_so_many_batches_is_counted(place, test, steps, trained):
    stop = f"        if {test}:\n            break"
    above, below = (f"{stop}\n", "") if place == "above" else ("", f"\n{stop}")
    source = script("for epoch in range(epochs):\n    for i, (features, target) in enumerate(loader):\n"
                    f"{above}        pass\n        BATCH{below}\n")
    run = trained(source)
    assert len(run.rates) == steps * 4
    helpers.assert_one_cycle(run)


def test_a_limit_on_all_steps_that_ends_both_loops_is_counted(trained):
    run = trained(script("""
done = 0
for epoch in range(epochs):
    for features, target in loader:
        BATCH
        done += 1
        if done >= 17:
            break
    if done >= 17:
        break
"""))
    assert len(run.rates) == 17
    helpers.assert_one_cycle(run)


def test_a_list_of_batches_that_is_filled_below_the_optimizer_is_counted_full(trained):
    run = trained(script("""
    batches = []
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    for start in range(0, 70, 10):
        batches.append((x[start:start + 10], x[start:start + 10, :1]))
    print(len(batches))

    for epoch in range(epochs):
        for features, target in batches:
            optimizer.zero_grad()
            nn.functional.mse_loss(model(features), target).backward()
            optimizer.step()
    """, optimizer=""))
    helpers.assert_one_cycle(run)


# -- warnings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", ["break", "return"])
def test_leaving_the_epochs_early_is_a_warning(leave, tmp_path):
    source = script(f"""
    def main():
        optimizer = optim.SGD(model.parameters(), lr=0.01)
        bad = 0
        for epoch in range(epochs):
            for features, target in loader:
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(model(features), target)
                loss.backward()
                optimizer.step()
            bad += loss > 1
            if bad > 2:
                {leave}


    main()
    """, optimizer="")
    outcome = helpers.assert_rewritten(source, tmp_path)

    assert helpers.codes(outcome, "warning") == ["QW150"]
    assert leave in helpers.new_text(outcome)


def test_an_option_without_effect_is_named(tmp_path):
    source = "import argparse\n" + by_epoch("lr_scheduler.StepLR(optimizer, args.step_size)")
    source = source.replace("epochs = 4\n", (
        "epochs = 4\nparser = argparse.ArgumentParser()\n"
        "parser.add_argument('--step-size', type=int, default=2)\nargs = parser.parse_args()\n"
    ))
    outcome = helpers.assert_rewritten(source, tmp_path)
    (said,) = [v for v in outcome.verdicts if v.code == "QW153"]

    assert said.status == "warning" and "step_size" in said.message


def test_an_own_class_that_is_left_over_is_named(tmp_path):
    source = script(
        OWN_BY_HAND + by_batch("WarmUp(optimizer, 0.02, 5)").removeprefix(HEAD + OPTIMIZER)
    )
    outcome = helpers.assert_rewritten(source, tmp_path)

    assert "QW157" in helpers.codes(outcome, "warning")
    assert "class WarmUp:" in helpers.new_text(outcome)


# -- one cycle already -------------------------------------------------------------------------


def test_torchs_one_cycle_by_batch_is_enough(tmp_path):
    source = by_batch("lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=epochs * len(loader))")
    outcome = helpers.look_at(source, tmp_path)

    assert outcome.after is None
    assert [(v.status, v.code) for v in outcome.verdicts] == [("already", "QW100")]


def test_torchs_one_cycle_by_epoch_is_kept_with_a_warning(tmp_path):
    source = by_epoch("lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=epochs * len(loader))")
    outcome = helpers.look_at(source, tmp_path)
    late = source[: source.index("    scheduler.step()")].count("\n") + 1

    assert outcome.after is None and outcome.status == "unchanged"
    assert {(v.status, v.code) for v in outcome.verdicts} == {
        ("already", "QW100"), ("warning", "QW155"),
    }
    assert [v.line for v in outcome.verdicts if v.code == "QW155"] == [late]


def test_the_rewrites_own_output_is_enough(tmp_path):
    outcome = helpers.look_at(helpers.look_at(PLAIN, tmp_path).after, tmp_path)

    assert outcome.after is None and helpers.codes(outcome) == ["QW100"]


# -- names that mean something else ------------------------------------------------------------

STRANGERS = {
    "a job scheduler": """
        from apscheduler.schedulers.background import BackgroundScheduler
        scheduler = BackgroundScheduler()
        for job in range(3):
            scheduler.step(job)
    """,
    "an environment": """
        import gymnasium
        env = gymnasium.make("CartPole-v1")
        for episode in range(3):
            env.reset()
            for t in range(100):
                env.step(env.action_space.sample())
    """,
    "an environment called optim": """
        from games import Optim
        optim = Optim()
        for episode in range(3):
            optim.step("left")
    """,
    "a simulation's own optimizer": """
        class Optimizer:
            def step(self):
                return 1
        optimizer = Optimizer()
        for round_number in range(3):
            optimizer.step()
    """,
    "a diffusion sampler": """
        from diffusers import DDIMScheduler
        scheduler = DDIMScheduler()
        for t in scheduler.timesteps:
            sample = scheduler.step(noise, t, sample).prev_sample
    """,
    "a comment and a string": """
        # optimizer.step() and lr_scheduler
        text = "optimizer.step()"
    """,
    "no code at all": "",
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_what_is_no_training_is_left_without_a_word(stranger, tmp_path):
    outcome = helpers.look_at(textwrap.dedent(STRANGERS[stranger]), tmp_path)

    assert outcome.after is None and outcome.status == "unchanged"
    assert not outcome.verdicts


def test_a_training_beside_an_environment_steps_the_schedule_once(tmp_path):
    source = PLAIN.replace("        optimizer.step()", "        env.step(loss)\n        optimizer.step()")
    text = helpers.new_text(helpers.assert_rewritten("import env\n" + source, tmp_path))

    assert "        env.step(loss)\n        optimizer.step()\n        scheduler.step()\n" in text
    assert text.count("scheduler.step()") == 1


@pytest.mark.parametrize("taken", ["scheduler = 3\n", "import scheduler\n", "def scheduler(): ...\n"])
def test_a_name_that_is_taken_is_not_used_for_the_schedule(taken, trained):
    if taken.startswith("import"):
        taken = "import sys as scheduler\n"
    source = PLAIN.replace("epochs = 4\n", f"epochs = 4\n{taken}") + "assert scheduler is not None\n"
    helpers.assert_one_cycle(trained(source))


# -- the file's bytes --------------------------------------------------------------------------


def differing(before, after):
    """The lines of the new text that are not the old one's."""
    old = before.splitlines(keepends=True)
    return [line for line in after.splitlines(keepends=True) if line not in old]


def test_windows_line_endings_stay(tmp_path):
    source = PLAIN.replace("\n", "\r\n").encode()
    after = helpers.assert_rewritten(source, tmp_path).after

    assert after.count(b"\r\n") == after.count(b"\n")
    assert b"scheduler.step()\r\n" in after


def test_line_endings_that_are_mixed_stay_on_their_lines(tmp_path):
    source = PLAIN.replace("\n", "\r\n", 5).encode()
    after = helpers.assert_rewritten(source, tmp_path).after

    assert all(line in after for line in source.splitlines(keepends=True))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_file_without_a_last_newline_gets_none(newline, tmp_path):
    source = (PLAIN + "print(loss.item())").replace("\n", newline).encode()
    after = helpers.assert_rewritten(source, tmp_path).after

    assert after.endswith(b"print(loss.item())")


def test_a_step_on_the_last_line_without_a_newline_is_followed(trained):
    helpers.assert_one_cycle(trained(PLAIN.rstrip("\n")))


def test_a_byte_order_mark_stays(tmp_path):
    after = helpers.assert_rewritten(b"\xef\xbb\xbf" + PLAIN.encode(), tmp_path).after

    assert after.startswith(b"\xef\xbb\xbfimport torch") and after.count(b"\xef\xbb\xbf") == 1


def test_an_encoding_that_the_file_declares_stays(tmp_path):
    source = ("# -*- coding: latin-1 -*-\n# für die Größe\n" + PLAIN).encode("latin-1")
    after = helpers.assert_rewritten(source, tmp_path).after

    assert after.startswith("# -*- coding: latin-1 -*-\n# für die Größe\nimport".encode("latin-1"))


def test_a_form_feed_stays(trained, tmp_path):
    source = PLAIN.replace("\nfor epoch", "\n\x0c\nfor epoch")
    helpers.assert_one_cycle(trained(source))
    assert "\x0c" in helpers.new_text(helpers.look_at(source, tmp_path))


def test_tabs_are_answered_by_tabs(tmp_path):
    source = by_epoch("lr_scheduler.StepLR(optimizer, 2)").replace("    ", "\t")
    source = "def main():\n" + "".join(f"\t{line}\n" for line in source.splitlines() if line)
    after = helpers.new_text(helpers.assert_rewritten(source, tmp_path))

    assert "\t\t\tscheduler.step()\n" in after and "\n " not in after and "\t " not in after


def test_two_spaces_are_answered_by_two_spaces(tmp_path):
    source = by_epoch("lr_scheduler.StepLR(optimizer, 2)").replace("    ", "  ")
    after = helpers.new_text(helpers.assert_rewritten(source, tmp_path))

    assert all(
        line.startswith(("  ", ")")) for line in differing(source, after) if line[0] in " )"
    )
    assert "    scheduler.step()\n" in after and "        scheduler" not in after


def test_a_file_that_python_cannot_read_is_an_error_and_stays(tmp_path):
    outcome = helpers.look_at(PLAIN + "for epoch in:\n", tmp_path)

    assert outcome.status == "error" and outcome.after is None
    assert helpers.codes(outcome) == ["QW001"]


# -- where the new lines go --------------------------------------------------------------------


def test_the_import_stands_under_the_last_import(tmp_path):
    after = helpers.new_text(helpers.look_at(PLAIN, tmp_path))

    assert (
        "from torch.utils.data import DataLoader, TensorDataset\n"
        "from quickwins_runtime import OneCycle\n\nx = "
    ) in after


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (
            "from quickwins_runtime import autocast, GradScaler  # of an earlier run\n",
            "from quickwins_runtime import GradScaler, OneCycle, autocast  # of an earlier run\n",
        ),
        (
            "from quickwins_runtime import autocast as half\n",
            "from quickwins_runtime import OneCycle, autocast as half\n",
        ),
        (
            "from quickwins_runtime import (\n    GradScaler,  # scales\n    autocast,\n)\n",
            "from quickwins_runtime import (\n    GradScaler,  # scales\n    autocast,\n)\n"
            "from quickwins_runtime import OneCycle\n",
        ),
        (
            "from .quickwins_runtime import autocast\n",
            "from .quickwins_runtime import autocast\nfrom quickwins_runtime import OneCycle\n",
        ),
    ],
    ids=["one line", "under another name", "over several lines", "of another package"],
)
def test_an_import_of_an_earlier_run_takes_the_name(tmp_path, present, expected):
    last = "from torch.utils.data import DataLoader, TensorDataset\n"
    outcome = helpers.assert_complete(PLAIN.replace(last, last + present), tmp_path)

    assert last + expected + "\nx = " in helpers.new_text(outcome)


def test_an_import_of_the_old_schedule_alone_goes_and_one_that_is_shared_stays(tmp_path):
    schedule = "StepLR(optimizer, 2)"
    alone = by_epoch(schedule).replace(
        "from torch.optim import lr_scheduler\n", "from torch.optim.lr_scheduler import StepLR\n"
    )
    shared = alone + "print(StepLR)\n"

    assert "StepLR" not in helpers.new_text(helpers.assert_rewritten(alone, tmp_path))
    assert "import StepLR" in helpers.new_text(helpers.assert_rewritten(shared, tmp_path))


def test_a_comment_that_speaks_of_the_old_schedule_goes_and_another_stays(tmp_path):
    source = by_epoch(
        "lr_scheduler.StepLR(optimizer, 2)",
        "# decay the learning rate every two epochs\n    scheduler.step()\n    # and on it goes",
    ).replace("\nscheduler =", "\n# see issue 12\nscheduler =")
    after = helpers.new_text(helpers.assert_rewritten(source, tmp_path))

    assert "decay" not in after and "# and on it goes" in after and "# see issue 12" in after


def test_the_state_is_saved_beside_the_optimizers_with_the_scripts_own_quotes(tmp_path):
    save = "torch.save({'optimizer_state_dict': optimizer.state_dict()}, 'last.pt')"
    after = helpers.new_text(helpers.assert_rewritten(PLAIN + f"    {save}\n", tmp_path))

    assert "'scheduler_state_dict': scheduler.state_dict()" in after
    assert '"scheduler' not in after


def test_the_rate_is_logged_where_batches_are_and_no_rate_is_yet(tmp_path):
    source = "import wandb\n" + PLAIN + "        wandb.log({'train/loss': loss.item()})\n"
    logged = source.replace("})", ", 'train/lr': optimizer.param_groups[0]['lr']})")

    after = helpers.new_text(helpers.assert_rewritten(source, tmp_path))
    assert "'train/learning_rate': optimizer.param_groups[0]['lr']" in after
    assert "learning_rate" not in helpers.new_text(helpers.assert_rewritten(logged, tmp_path))


def test_two_optimizers_are_judged_one_by_one_unless_they_step_in_one_loop(tmp_path):
    other = """
second = optim.Adam(model.parameters(), lr=1e-3)
while loss > 1e-3:
    for features, target in loader:
        second.zero_grad()
        loss = nn.functional.mse_loss(model(features), target)
        loss.backward()
        second.step()
"""
    outcome = helpers.look_at(PLAIN + other, tmp_path)

    assert outcome.status == "changed"
    assert helpers.codes(outcome, "applied") == ["QW102"]
    assert helpers.codes(outcome, "refused") == ["QW113"]
    assert helpers.new_text(outcome).endswith(other)
