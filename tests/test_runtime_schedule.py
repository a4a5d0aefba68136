"""The learning rate that OneCycle gives a script, and what a script may do to it meanwhile."""

import ast
import copy
import gc
import io
import math
import pickle
import shutil
import subprocess
import sys
import warnings
import weakref
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from quickwins_codemod.runtime.schedule import OneCycle  # noqa: E402

RUNTIME = Path(__file__).resolve().parents[1] / "runtime"
torch.set_num_threads(1)


def parameter(value=1.0):
    return torch.nn.Parameter(torch.full((2,), value))


def sgd(*rates, **options):
    return torch.optim.SGD([{"params": [parameter()], "lr": rate} for rate in rates], **options)


def backward(optimizer, gradient=1.0):
    for group in optimizer.param_groups:
        for weight in group["params"]:
            weight.grad = torch.full_like(weight, gradient)


def rates_of(optimizer):
    return [float(group["lr"]) for group in optimizer.param_groups]


def train(optimizer, scheduler, steps):
    """The rates (of the first group) with which `steps` optimizer steps are made."""
    rates = []
    for _ in range(steps):
        rates.append(rates_of(optimizer)[0])
        backward(optimizer)
        optimizer.step()
        scheduler.step()
    return rates


def expected(step, total, peak, pct=0.1, div=25.0, final=1e4):
    """Written from the definition: half a cosine up to the peak, half a cosine down."""
    first, end = peak / div, peak / div / final
    top = pct * total - 1
    if step <= top:
        return first + (peak - first) * (1 - math.cos(math.pi * step / top)) / 2
    return peak + (end - peak) * (1 - math.cos(math.pi * (step - top) / (total - 1 - top))) / 2


@pytest.fixture(autouse=True)
def no_warnings():
    """A user who follows the rules sees no warning; tests of warnings say so with pytest.warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# The curve


@pytest.mark.parametrize("total, pct", [(40, 0.1), (100, 0.1), (33, 0.3), (25, 0.1), (64, 0.5)])
def test_every_rate_is_on_the_cosine(total, pct):
    optimizer = sgd(0.01)
    scheduler = OneCycle(optimizer, total_steps=total, pct_start=pct)
    rates = train(optimizer, scheduler, total)
    assert rates == pytest.approx(
        [expected(step, total, 0.03, pct) for step in range(total)], rel=1e-9, abs=1e-15
    )


def test_equals_torch_where_torch_has_a_climb_of_more_than_a_step():
    for total in (20, 37, 200):
        ours, theirs = sgd(0.01), sgd(0.01)
        own = OneCycle(ours, total_steps=total, pct_start=0.25)
        other = torch.optim.lr_scheduler.OneCycleLR(
            theirs, 0.03, total_steps=total, pct_start=0.25, cycle_momentum=False
        )
        assert train(ours, own, total) == train(theirs, other, total)


def test_length_from_epochs_and_steps():
    optimizer = sgd(0.01)
    scheduler = OneCycle(optimizer, epochs=5, steps_per_epoch=8, max_lr_factor=3.0)
    assert scheduler.total_steps == 40
    rates = train(optimizer, scheduler, 40)
    assert rates[0] == pytest.approx(0.03 / 25)
    assert max(rates) == rates[3] == pytest.approx(0.03)
    assert rates[-1] == pytest.approx(0.03 / 25 / 1e4) == min(rates)


@pytest.mark.parametrize("pct", [0, 0.0, 0.01, 0.05, 0.1, 0.2, 0.25, 1 / 3, 0.5, 0.9, 1, 1.0])
def test_short_runs(pct):
    for total in range(1, 41):
        optimizer = sgd(0.01)
        scheduler = OneCycle(optimizer, total_steps=total, pct_start=pct)
        rates = train(optimizer, scheduler, total)
        assert all(0 < rate <= 0.03 for rate in rates), total
        if total >= 2:
            assert max(rates) > 0.85 * 0.03, total
            assert rates[-1] == min(rates) == pytest.approx(0.03 / 25 / 1e4), total
        if 2 <= total <= 10 and pct <= 0.2:
            assert max(rates) == 0.03, total
        if total >= 3:
            assert rates[0] == pytest.approx(0.03 / 25), total


def test_a_single_step_has_the_groups_own_rate():
    for max_lr, rate in ((None, 0.01), (0.002, 0.002)):
        optimizer = sgd(0.01)
        scheduler = OneCycle(optimizer, total_steps=1, max_lr=max_lr)
        assert train(optimizer, scheduler, 3) == [rate] * 3


@pytest.mark.parametrize(
    "length",
    [
        {"epochs": 0, "steps_per_epoch": 10},
        {"epochs": 3, "steps_per_epoch": 0},
        {"total_steps": 0},
    ],
)
def test_an_empty_run_is_accepted(length):
    scheduler = OneCycle(sgd(0.01), **length)
    assert scheduler.total_steps == 1
    assert scheduler.get_last_lr() == [0.01]


def test_every_group_has_its_own_peak():
    optimizer = sgd(0.01, 0.0001)
    scheduler = OneCycle(optimizer, total_steps=40, max_lr_factor=2)
    highest = [0.0, 0.0]
    for _ in range(40):
        highest = [max(pair) for pair in zip(highest, rates_of(optimizer))]
        train(optimizer, scheduler, 1)
    assert highest == pytest.approx([0.02, 0.0002])


@pytest.mark.parametrize(
    "max_lr, peaks", [(0.5, [0.5, 0.5]), ([0.5, 0.2], [0.5, 0.2]), ((1, 2), [1, 2])]
)
def test_absolute_peaks(max_lr, peaks):
    optimizer = sgd(0.01, 0.02)
    scheduler = OneCycle(optimizer, total_steps=40, max_lr=max_lr)
    train(optimizer, scheduler, 3)
    assert rates_of(optimizer) == pytest.approx(peaks)


def test_last_lr_and_name_for_the_logs():
    optimizer = sgd(0.01, 0.02)
    scheduler = OneCycle(optimizer, total_steps=40)
    train(optimizer, scheduler, 2)
    assert scheduler.get_last_lr() == rates_of(optimizer)
    assert scheduler.get_lr() == rates_of(optimizer)
    assert type(scheduler).__name__ == "OneCycle"
    assert repr(scheduler) == "OneCycle(step 2 of 40)"
    assert isinstance(scheduler, torch.optim.lr_scheduler.OneCycleLR)


# Arguments


@pytest.mark.parametrize(
    "arguments, error, name",
    [
        ({}, ValueError, "epochs"),
        ({"epochs": 3}, ValueError, "steps_per_epoch"),
        ({"steps_per_epoch": 3}, ValueError, "epochs"),
        ({"total_steps": 3, "epochs": 3, "steps_per_epoch": 3}, ValueError, "total_steps"),
        ({"total_steps": -1}, ValueError, "total_steps"),
        ({"epochs": -2, "steps_per_epoch": -2}, ValueError, "epochs"),
        ({"epochs": 3, "steps_per_epoch": 10 / 4}, TypeError, "steps_per_epoch"),
        ({"total_steps": True}, TypeError, "total_steps"),
        ({"total_steps": "10"}, TypeError, "total_steps"),
        ({"total_steps": 9, "pct_start": 1.5}, ValueError, "pct_start"),
        ({"total_steps": 9, "max_lr_factor": 0}, ValueError, "max_lr_factor"),
        ({"total_steps": 9, "max_lr_factor": float("nan")}, ValueError, "max_lr_factor"),
        ({"total_steps": 9, "max_lr": -0.1}, ValueError, "max_lr"),
        ({"total_steps": 9, "max_lr": [0.1, 0.2]}, ValueError, "max_lr"),
        ({"total_steps": 9, "div_factor": 0.5}, ValueError, "div_factor"),
        ({"total_steps": 9, "final_div_factor": 0}, ValueError, "final_div_factor"),
    ],
)
def test_wrong_arguments_are_named_and_leave_the_optimizer_alone(arguments, error, name):
    optimizer = sgd(0.01)
    with pytest.raises(error, match=rf"\b{name}\b"):
        OneCycle(optimizer, **arguments)
    assert rates_of(optimizer) == [0.01]


def test_integers_of_numpy_are_integers():
    numpy = pytest.importorskip("numpy")
    assert OneCycle(sgd(0.01), total_steps=numpy.int64(12)).total_steps == 12


def test_not_an_optimizer():
    with pytest.raises(TypeError, match="optimizer"):
        OneCycle(object(), total_steps=3)


@pytest.mark.parametrize("arguments, named", [((0.7,), {}), ((3,), {}), ((), {"metrics": 0.7})])
def test_a_leftover_argument_of_step_is_refused(arguments, named):
    optimizer = sgd(0.01)
    scheduler = OneCycle(optimizer, total_steps=40)
    train(optimizer, scheduler, 5)
    before = rates_of(optimizer)
    with pytest.raises(TypeError, match="takes no argument"):
        scheduler.step(*arguments, **named)
    assert (scheduler.last_epoch, rates_of(optimizer)) == (5, before)


# Optimizers


@pytest.mark.parametrize(
    "name, options",
    [
        ("SGD", {}),
        ("SGD", {"momentum": 0.8}),
        ("Adam", {"betas": (0.5, 0.999)}),
        ("AdamW", {}),
        ("NAdam", {}),
        ("RAdam", {}),
        ("Adamax", {}),
        ("Adagrad", {}),
        ("Adadelta", {}),
        ("RMSprop", {}),
        ("Rprop", {}),
        ("ASGD", {}),
        ("Adafactor", {}),
    ],
)
def test_only_the_rate_of_an_optimizer_changes(name, options):
    if not hasattr(torch.optim, name):
        pytest.skip(f"this torch has no {name}")
    optimizer = getattr(torch.optim, name)([parameter()], lr=0.01, **options)
    rate = "lr initial_lr max_lr min_lr onecycle_base_lr onecycle_lr".split()
    before = {key: value for key, value in optimizer.param_groups[0].items() if key not in rate}
    rates = train(optimizer, OneCycle(optimizer, total_steps=30), 30)
    assert rates == pytest.approx([expected(step, 30, 0.03) for step in range(30)])
    after = {key: value for key, value in optimizer.param_groups[0].items() if key not in rate}
    assert after == before


def test_sparse_adam():
    table = torch.nn.Embedding(5, 2, sparse=True)
    optimizer = torch.optim.SparseAdam(table.parameters(), lr=0.01)
    scheduler = OneCycle(optimizer, total_steps=30)
    for _ in range(3):
        table(torch.tensor([1])).sum().backward()
        optimizer.step()
        scheduler.step()
    assert rates_of(optimizer)[0] == pytest.approx(expected(3, 30, 0.03))


def test_a_step_with_closure_counts_as_one():
    weight = parameter()
    optimizer = torch.optim.LBFGS([weight], lr=0.01, max_iter=4)
    scheduler = OneCycle(optimizer, total_steps=30)

    def closure():
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
        scheduler.step()
    assert scheduler.last_epoch == 3


def test_a_tensor_rate_is_set_in_place():
    rate = torch.tensor(0.01)
    optimizer = torch.optim.Adam([parameter()], lr=rate, foreach=False, capturable=True)
    scheduler = OneCycle(optimizer, total_steps=30)
    assert optimizer.param_groups[0]["lr"] is rate
    scheduler.resume_at(2)  # stepping a capturable optimizer needs an accelerator
    assert rate.item() == pytest.approx(0.03)
    last = scheduler.get_last_lr()[0]
    scheduler.resume_at(20)
    assert float(last) == pytest.approx(0.03), "a logged rate changed afterwards"
    torch.load(io.BytesIO(saved(scheduler.state_dict())), weights_only=True)
    again = OneCycle(optimizer, total_steps=30)
    again.resume_at(2)
    assert rate.item() == pytest.approx(0.03)


def test_a_subclass_that_calls_its_parents_step_does_not_run_at_double_speed():
    torch.optim.Adam([parameter()])  # makes torch hook Adam.step itself

    class Own(torch.optim.Adam):
        def step(self, closure=None):
            return super().step(closure)

    optimizer = Own([parameter()], lr=0.01)
    scheduler = OneCycle(optimizer, total_steps=30)
    train(optimizer, scheduler, 4)
    assert scheduler.last_epoch == 4


def test_a_wrapper_that_is_no_initialised_optimizer():
    class Lookahead(torch.optim.Optimizer):
        def __init__(self, inner):
            self.inner, self.param_groups = inner, inner.param_groups

        def step(self, closure=None):
            return self.inner.step(closure)

    optimizer = Lookahead(sgd(0.01))
    scheduler = OneCycle(optimizer, total_steps=30)
    assert train(optimizer, scheduler, 30)[2] == pytest.approx(0.03)


# Steps that are too many, too few, or skipped


def test_calls_after_the_end_do_nothing():
    optimizer = sgd(0.01)
    scheduler = OneCycle(optimizer, total_steps=12)
    rates = train(optimizer, scheduler, 20)
    assert rates[11:] == [rates[11]] * 9
    assert scheduler.last_epoch == 11


def test_one_call_moves_one_step_and_none_without_an_optimizer_step():
    optimizer = sgd(0.01)
    scheduler = OneCycle(optimizer, total_steps=30)
    scheduler.step()
    assert scheduler.last_epoch == 0
    backward(optimizer)
    optimizer.step()
    optimizer.step()
    scheduler.step()
    scheduler.step()
    assert scheduler.last_epoch == 1
    assert scheduler.get_last_lr() == rates_of(optimizer)


def test_steps_made_before_the_scheduler_do_not_count():
    optimizer = sgd(0.01)
    backward(optimizer)
    optimizer.step()
    scheduler = OneCycle(optimizer, total_steps=30)
    scheduler.step()
    assert scheduler.last_epoch == 0


def test_an_optimizer_that_never_steps_is_told():
    optimizer = sgd(0.01)
    scheduler = OneCycle(optimizer, total_steps=300)
    for _ in range(99):
        scheduler.step()
    train(optimizer, scheduler, 1)  # and now it did
    for _ in range(99):
        scheduler.step()
    with pytest.warns(UserWarning, match="made no step"):
        scheduler.step()
    scheduler.step()  # said once


@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_steps_that_the_scaler_skips_do_not_count(fused, unscale):
    weight = parameter()
    try:
        optimizer = torch.optim.Adam([weight], lr=0.01, fused=fused)
    except RuntimeError as error:
        pytest.skip(str(error))
    assert getattr(optimizer, "_step_supports_amp_scaling", False) is fused
    scheduler = OneCycle(optimizer, total_steps=30)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    seen = []
    for overflow in (True, True, False, True, False, False):
        before = weight.detach().clone()
        optimizer.zero_grad()
        scaler.scale((weight * (float("inf") if overflow else 1.0)).sum()).backward()
        if unscale:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        assert torch.equal(before, weight) is overflow
        seen.append(scheduler.last_epoch)
    assert seen == [0, 0, 1, 1, 2, 3]


def test_with_a_disabled_scaler():
    optimizer = sgd(0.01)
    scheduler = OneCycle(optimizer, total_steps=30)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for _ in range(3):
        backward(optimizer)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
    assert scheduler.last_epoch == 3


# A second run over one optimizer


def test_a_second_cycle_peaks_as_high_and_counts_once():
    optimizer = sgd(0.01)
    first = train(optimizer, OneCycle(optimizer, total_steps=30), 30)
    scheduler = OneCycle(optimizer, total_steps=30)
    assert train(optimizer, scheduler, 30) == first
    scheduler = OneCycle(optimizer, total_steps=30)  # after a cycle that was cut short
    train(optimizer, scheduler, 7)
    assert train(optimizer, OneCycle(optimizer, total_steps=30), 30) == first
    assert len(optimizer._optimizer_step_post_hooks) == 1


def test_a_second_cycle_follows_a_rate_that_was_set_by_hand():
    optimizer = sgd(0.01)
    train(optimizer, OneCycle(optimizer, total_steps=30), 30)
    optimizer.param_groups[0]["lr"] = 0.0005
    assert max(train(optimizer, OneCycle(optimizer, total_steps=30), 30)) == pytest.approx(0.0015)


def test_after_another_scheduler_the_peak_is_that_of_the_first_rate():
    optimizer = sgd(0.01)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.0)
    assert rates_of(optimizer) == [0.0]
    assert max(train(optimizer, OneCycle(optimizer, total_steps=30), 30)) == pytest.approx(0.03)


def test_after_torchs_own_cycle_its_peak_is_kept():
    optimizer = sgd(0.01)
    torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=30, cycle_momentum=False)
    for _ in range(2):
        rates = train(optimizer, OneCycle(optimizer, total_steps=30), 30)
        assert max(rates) == pytest.approx(0.2)


def test_after_an_optimizer_state_from_an_earlier_cycle():
    old = sgd(0.01)
    train(old, OneCycle(old, total_steps=30), 9)
    optimizer = sgd(0.7)
    optimizer.load_state_dict(old.state_dict())
    assert max(train(optimizer, OneCycle(optimizer, total_steps=30), 30)) == pytest.approx(0.03)


# Groups that come later


def test_an_added_group_gets_its_own_cycle():
    optimizer = sgd(0.01)
    scheduler = OneCycle(optimizer, total_steps=40)
    train(optimizer, scheduler, 10)
    optimizer.add_param_group({"params": [parameter()], "lr": 0.001})
    train(optimizer, scheduler, 1)
    assert rates_of(optimizer)[1] == pytest.approx(expected(11, 40, 0.003))
    assert rates_of(optimizer)[0] == pytest.approx(expected(11, 40, 0.03))
    assert len(scheduler.get_last_lr()) == 2
    train(optimizer, scheduler, 30)
    assert rates_of(optimizer)[1] == pytest.approx(0.003 / 25 / 1e4)


def test_an_added_group_with_absolute_peaks():
    for max_lr, peak in ((0.5, 0.5), ([0.5], 0.003)):
        optimizer = sgd(0.01)
        scheduler = OneCycle(optimizer, total_steps=40, max_lr=max_lr)
        optimizer.add_param_group({"params": [parameter()], "lr": 0.001})
        train(optimizer, scheduler, 3)
        assert rates_of(optimizer) == pytest.approx([0.5, peak])


# Checkpoints


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def loaded(data):
    return torch.load(io.BytesIO(data), weights_only=True)


@pytest.mark.parametrize("optimizer_first", [True, False])
@pytest.mark.parametrize("make", [lambda: sgd(0.01, 0.002, momentum=0.9), lambda: sgd(0.01, 0.002)])
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(make, optimizer_first):
    whole = make()
    rates = train(whole, OneCycle(whole, total_steps=40), 40)

    first = make()
    scheduler = OneCycle(first, total_steps=40)
    begun = train(first, scheduler, 17)
    checkpoint = loaded(saved({"o": first.state_dict(), "s": scheduler.state_dict()}))

    second = make()
    scheduler = OneCycle(second, total_steps=40)
    if optimizer_first:
        second.load_state_dict(checkpoint["o"])
    scheduler.load_state_dict(checkpoint["s"])
    if not optimizer_first:
        second.load_state_dict(checkpoint["o"])
    assert begun + train(second, scheduler, 23) == rates
    assert rates_of(second) == rates_of(whole)


def test_loading_sets_the_rates_at_once_and_forgets_earlier_steps():
    optimizer = sgd(0.01)
    scheduler = OneCycle(optimizer, total_steps=40)
    train(optimizer, scheduler, 20)
    state = scheduler.state_dict()
    other = sgd(0.01)
    resumed = OneCycle(other, total_steps=40)
    backward(other)
    other.step()
    resumed.load_state_dict(state)
    assert rates_of(other) == rates_of(optimizer) == resumed.get_last_lr()
    resumed.step()
    assert resumed.last_epoch == 20


def test_a_resumed_run_keeps_the_rate_it_was_started_with():
    optimizer = sgd(0.01)
    scheduler = OneCycle(optimizer, total_steps=40)
    train(optimizer, scheduler, 20)
    forgotten_option = sgd(0.5)
    resumed = OneCycle(forgotten_option, total_steps=40)
    resumed.load_state_dict(scheduler.state_dict())
    assert train(forgotten_option, resumed, 20) == train(optimizer, scheduler, 20)


def test_a_state_is_a_copy_and_holds_plain_values():
    optimizer = sgd(0.01)
    scheduler = OneCycle(optimizer, total_steps=40)
    state = scheduler.state_dict()
    kept = copy.deepcopy(state)
    train(optimizer, scheduler, 5)
    optimizer.add_param_group({"params": [parameter()], "lr": 0.001})
    train(optimizer, scheduler, 1)
    assert state == kept
    assert loaded(saved(state)) == state


@pytest.mark.parametrize("total, last", [(80, 17), (10, 9)])
def test_another_length_on_resume_keeps_the_new_length_and_says_so(total, last):
    optimizer = sgd(0.01)
    scheduler = OneCycle(optimizer, total_steps=40)
    train(optimizer, scheduler, 17)
    other = sgd(0.01)
    resumed = OneCycle(other, total_steps=total)
    with pytest.warns(UserWarning, match=rf"40 steps and this one has {total}.*step {last} "):
        resumed.load_state_dict(scheduler.state_dict())
    assert (resumed.total_steps, resumed.last_epoch) == (total, last)
    reference = sgd(0.01)
    train(reference, OneCycle(reference, total_steps=total), last)
    assert rates_of(other) == rates_of(reference)
    train(other, resumed, 80)
    assert rates_of(other) == [pytest.approx(0.03 / 25 / 1e4)]


def foreign_states():
    schedulers = torch.optim.lr_scheduler
    return {
        "torch's own OneCycleLR": schedulers.OneCycleLR(sgd(0.1, momentum=0.9), 0.1, 40),
        "CosineAnnealingLR": schedulers.CosineAnnealingLR(sgd(0.1), 10),
        "ReduceLROnPlateau": schedulers.ReduceLROnPlateau(sgd(0.1)),
        "step_size": schedulers.StepLR(sgd(0.1), 3),
    }


@pytest.mark.parametrize("name", list(foreign_states()))
def test_the_state_of_another_scheduler_is_refused(name):
    assert_refused(foreign_states()[name].state_dict(), name)


@pytest.mark.parametrize(
    "state, name",
    [({}, "empty"), (None, "NoneType"), ([1], "list"), ({"current_step": 3}, "current_step")],
)
def test_what_is_no_state_is_refused(state, name):
    assert_refused(state, name)


def assert_refused(state, name):
    optimizer = sgd(0.01)
    scheduler = OneCycle(optimizer, total_steps=40)
    train(optimizer, scheduler, 5)
    before = scheduler.state_dict()
    with pytest.raises(ValueError, match=name) as refusal:
        scheduler.load_state_dict(state)
    assert "resume_at" in str(refusal.value)
    assert scheduler.state_dict() == before


def test_another_number_of_groups_is_refused():
    state = OneCycle(sgd(0.1, 0.2), total_steps=40).state_dict()
    with pytest.raises(ValueError, match="2 parameter groups.* 1"):
        OneCycle(sgd(0.1), total_steps=40).load_state_dict(state)


def test_a_group_that_was_added_before_loading_is_one_of_the_saved_ones():
    def grown(optimizer):
        optimizer.add_param_group({"params": [parameter()], "lr": 0.001})
        return optimizer

    optimizer = sgd(0.01)
    scheduler = OneCycle(optimizer, total_steps=40)
    train(grown(optimizer), scheduler, 20)
    other = sgd(0.01)
    resumed = OneCycle(other, total_steps=40)
    grown(other)
    resumed.load_state_dict(scheduler.state_dict())
    assert rates_of(other) == rates_of(optimizer)


def test_resume_at_places_a_run_without_a_state():
    whole, optimizer = sgd(0.01), sgd(0.01)
    rates = train(whole, OneCycle(whole, total_steps=40), 40)
    scheduler = OneCycle(optimizer, total_steps=40)
    scheduler.resume_at(25)
    assert train(optimizer, scheduler, 15) == rates[25:]
    scheduler.resume_at(1000)
    assert scheduler.last_epoch == 39
    with pytest.raises(ValueError, match="steps_done"):
        scheduler.resume_at(-1)


@pytest.mark.parametrize("with_cosine", [True, False])
def test_an_old_optimizer_state_loaded_after_construction(with_cosine):
    old = sgd(0.01, momentum=0.9)
    if with_cosine:
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(old, 10)
        train(old, cosine, 8)
    state = loaded(saved(old.state_dict()))
    optimizer = sgd(0.01, momentum=0.9)
    scheduler = OneCycle(optimizer, total_steps=40)
    train(optimizer, scheduler, 5)
    optimizer.load_state_dict(state)
    assert rates_of(optimizer) == [pytest.approx(expected(5, 40, 0.03))]
    train(optimizer, scheduler, 1)
    assert rates_of(optimizer) == [pytest.approx(expected(6, 40, 0.03))]
    again = OneCycle(optimizer, total_steps=40)
    assert max(train(optimizer, again, 40)) == pytest.approx(0.03)


# What else holds an optimizer


def test_copies_and_pickles_train_on():
    optimizer = sgd(0.01)
    scheduler = OneCycle(optimizer, total_steps=40)
    train(optimizer, scheduler, 10)
    for twin, rates in (
        copy.deepcopy((optimizer, scheduler)),
        pickle.loads(pickle.dumps((optimizer, scheduler))),
    ):
        assert rates.optimizer is twin
        rates.step()
        assert rates.last_epoch == 10
        train(twin, rates, 3)
        assert rates.last_epoch == 13
    assert scheduler.last_epoch == 10
    copy.deepcopy(optimizer).step()
    pickle.loads(pickle.dumps(optimizer)).step()
    loaded(saved(optimizer.state_dict()))


def test_the_optimizer_does_not_keep_the_scheduler():
    optimizer = sgd(0.01)
    scheduler = weakref.ref(OneCycle(optimizer, total_steps=40))
    gc.collect()
    assert scheduler() is None
    backward(optimizer)
    optimizer.step()


def test_two_optimizers_do_not_mix():
    one, two = sgd(0.01), sgd(0.01)
    first, second = OneCycle(one, total_steps=40), OneCycle(two, total_steps=40)
    train(one, first, 3)
    second.step()
    assert (first.last_epoch, second.last_epoch) == (3, 0)


# The copy in a user's repository


def test_works_as_a_package_of_another_name(tmp_path):
    shutil.copytree(
        RUNTIME, tmp_path / "quickwins_runtime", ignore=shutil.ignore_patterns("__pycache__")
    )
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, torch\n"
        "from quickwins_runtime import OneCycle\n"
        "optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.01)\n"
        "scheduler = OneCycle(optimizer, epochs=2, steps_per_epoch=10, max_lr_factor=3.0)\n"
        "optimizer.step()\n"
        "scheduler.step()\n"
        "print(scheduler.__class__.__module__, scheduler.get_last_lr())\n"
        "assert not [name for name in sys.modules if name.startswith('quickwins_codemod')]\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "quickwins_runtime.schedule [0.03]\n"
    assert done.stderr == ""


@pytest.mark.parametrize("path", sorted(RUNTIME.rglob("*.py")), ids=lambda path: path.name)
def test_the_runtime_is_python_3_9_and_imports_only_itself_and_torch(path):
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        for name in names:
            top = name.partition(".")[0]
            assert top in {"torch", "numpy", "wandb"} or top in sys.stdlib_module_names, name


def test_a_loaded_optimizer_state_does_not_bring_the_rate_of_its_own_last_step():
    finished = sgd(1e-3)
    train(finished, OneCycle(finished, total_steps=20), 20)
    optimizer = sgd(1e-3)
    scheduler = OneCycle(optimizer, total_steps=20)
    optimizer.load_state_dict(finished.state_dict())
    rates = train(optimizer, scheduler, 20)
    assert rates == pytest.approx([expected(step, 20, 3e-3) for step in range(20)])


def test_steps_are_those_of_torch_schedulers_for_tools_that_count_them(monkeypatch):
    calls = []
    original = torch.optim.lr_scheduler.LRScheduler.step
    monkeypatch.setattr(
        torch.optim.lr_scheduler.LRScheduler,
        "step",
        lambda self, *a: (calls.append(self.last_epoch), original(self, *a))[1],
    )
    optimizer = sgd(1e-3)
    train(optimizer, OneCycle(optimizer, total_steps=12), 12)
    assert calls[-11:] == list(range(11))
