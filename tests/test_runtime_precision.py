"""What autocast and GradScaler do to a training loop, on each device and in full precision."""

import copy
import io
import math
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from quickwins_codemod.runtime import GradScaler, OneCycle, autocast  # noqa: E402

RUNTIME = Path(__file__).resolve().parents[1] / "runtime"
HALF, BRAIN = torch.float16, torch.bfloat16
mse = torch.nn.functional.mse_loss
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_warnings_and_no_variable(monkeypatch):
    """A user who follows the rules sees no warning; tests of warnings say so with pytest.warns."""
    monkeypatch.delenv("QUICKWINS_AMP", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def amp(monkeypatch):
    return lambda value: monkeypatch.setenv("QUICKWINS_AMP", value)


@pytest.fixture
def card(monkeypatch):
    """Say that there is a CUDA card, or none, as far as the policy asks torch."""

    def pretend(available, has_bf16=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
        # Like torch's, which says yes to what a card only emulates, unless told otherwise.
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation=True: available and (has_bf16 or including_emulation),
        )

    return pretend


def regions():
    """The device types under autocast here, with their dtypes."""
    kinds = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    return {kind: torch.get_autocast_dtype(kind) for kind in kinds}


def inside(*arguments, **named):
    with autocast(*arguments, **named):
        return regions()


def product():
    """The dtype in which a matrix product is computed here."""
    return torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype


def parameter(value=1.0):
    return torch.nn.Parameter(torch.full((2,), value))


def scaled_step(scaler, optimizer, gradient=1.0, unscale=False):
    """One step of SGD(lr=1) or another, with the same gradient for every parameter."""
    optimizer.zero_grad()
    weights = [w for group in optimizer.param_groups for w in group["params"]]
    scaler.scale(sum((w * gradient).sum() for w in weights)).backward()
    if unscale:
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()


# The policy


@pytest.mark.parametrize(
    "device, value, dtype, expected",
    [
        ("cuda", None, None, HALF),
        ("cuda", "auto", None, HALF),
        ("cuda", "", None, HALF),
        ("cuda", "fp16", None, HALF),
        ("cuda", "bf16", None, BRAIN),
        ("cuda", "off", None, None),
        ("cuda", None, HALF, HALF),
        ("cuda", None, BRAIN, BRAIN),
        ("cuda", "auto", BRAIN, BRAIN),
        ("cuda", "fp16", BRAIN, HALF),
        ("cuda", "bf16", HALF, BRAIN),
        ("cuda", "off", BRAIN, None),
        ("cpu", None, None, None),
        ("cpu", "auto", None, None),
        ("cpu", "fp16", None, HALF),
        ("cpu", "bf16", None, BRAIN),
        ("cpu", "off", HALF, None),
        ("cpu", None, HALF, HALF),
        ("cpu", None, BRAIN, BRAIN),
        ("mps", None, None, None),
        ("xpu", "auto", None, None),
        ("mps", "off", HALF, None),
        ("meta", None, None, None),
    ],
)
def test_the_policy_on_a_machine_with_a_card(device, value, dtype, expected, card, amp):
    card(True)
    if value is not None:
        amp(value)
    scaler = GradScaler(device, dtype=dtype)
    assert inside(device, dtype=dtype) == ({device: expected} if expected else {})
    assert scaler.is_enabled() is (expected is HALF)
    assert regions() == {}


@pytest.mark.parametrize("value", ["auto", "fp16", "bf16", "off"])
def test_cuda_on_a_machine_without_is_off_and_quiet(value, card, amp):
    card(False)
    amp(value)
    assert inside("cuda", dtype=BRAIN) == {}
    assert not GradScaler("cuda", dtype=HALF).is_enabled()


@pytest.mark.parametrize("value, dtype", [("bf16", None), (None, BRAIN)])
def test_bfloat16_that_a_card_only_emulates_is_full_precision(value, dtype, card, amp):
    card(True, has_bf16=False)
    if value:
        amp(value)
    with pytest.warns(UserWarning, match="no bfloat16.*full precision") as said:
        region, scaler = autocast("cuda", dtype=dtype), GradScaler("cuda", dtype=dtype)
    assert [warning.filename for warning in said] == [__file__] * 2
    with region:
        assert regions() == {}
    assert not scaler.is_enabled()


def test_a_card_without_bfloat16_has_float16(card):
    card(True, has_bf16=False)
    assert inside("cuda") == {"cuda": HALF}
    assert GradScaler("cuda").is_enabled()


@pytest.mark.parametrize("device", ["mps", "xpu", "meta"])
@pytest.mark.parametrize("value, dtype", [("fp16", None), ("bf16", None), (None, HALF)])
def test_other_devices_say_that_they_cannot(device, value, dtype, amp):
    if value:
        amp(value)
    with pytest.warns(UserWarning, match=f"{device} trains in full precision"):
        assert inside(device, dtype=dtype) == {}
    with pytest.warns(UserWarning, match=f"{device} trains in full precision"):
        assert not GradScaler(device, dtype=dtype).is_enabled()


@pytest.mark.parametrize("value", ["fp32", "FP16", "1", "true", "off "])
def test_another_value_of_the_variable_is_refused(value, amp):
    amp(value)
    for make in (autocast, GradScaler):
        with pytest.raises(ValueError, match=f"QUICKWINS_AMP.*auto, off, fp16, bf16.*'{value}'"):
            make("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, "bf16", torch.int8])
def test_another_dtype_is_refused(dtype):
    for make in (autocast, GradScaler):
        with pytest.raises(ValueError, match="dtype must be torch.float16 or torch.bfloat16"):
            make("cpu", dtype=dtype)


def test_the_variable_is_read_when_the_object_is_made(amp):
    early = autocast("cpu")
    amp("fp16")
    late, scaler = autocast("cpu"), GradScaler("cpu")
    amp("off")
    with early:
        assert regions() == {}
    with late:
        assert regions() == {"cpu": HALF}
    assert scaler.is_enabled()


# Devices


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3", torch.device("cuda", 1)])
def test_a_device_with_an_index_is_of_its_type(device, card):
    card(True)
    assert inside(device) == {"cuda": HALF}
    scaler = GradScaler(device)
    assert scaler.is_enabled()
    card(False)
    assert inside(device) == {}
    assert not GradScaler(device).is_enabled()


@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu")])
def test_a_cpu_device(device, amp):
    amp("fp16")
    assert inside(device) == {"cpu": HALF}
    scaled_step(GradScaler(device), torch.optim.SGD([parameter()], lr=1.0))


@pytest.mark.parametrize(
    "device", [None, True, 1.5, torch.ones(1), torch.nn.Linear(1, 1), 512.0, ["cpu"]]
)
def test_what_is_no_device_is_refused(device):
    for make in (autocast, GradScaler):
        with pytest.raises(TypeError, match=f"device must be.* {type(device).__name__}"):
            make(device)


def test_an_unknown_name_is_refused():
    for make in (autocast, GradScaler):
        with pytest.raises(RuntimeError, match="cpu, cuda"):
            make("gpu")


# The region


def test_the_region_ends_where_the_block_does_also_by_an_error(amp):
    amp("bf16")
    with pytest.raises(KeyError), autocast("cpu"):
        assert product() is BRAIN
        raise KeyError
    assert product() is torch.float32


@pytest.mark.parametrize("value", ["fp16", "off"])
def test_one_object_serves_many_batches(value, amp):
    amp(value)
    region = autocast("cpu")
    for _ in range(3):
        with region:
            assert product() is (HALF if value == "fp16" else torch.float32)
        assert product() is torch.float32


@pytest.mark.parametrize("value", ["fp16", "off"])
def test_is_a_decorator(value, amp):
    amp(value)

    @autocast("cpu")
    def forward(factor):
        return factor, product()

    for _ in range(2):
        assert forward(factor=3) == (3, HALF if value == "fp16" else torch.float32)
    assert product() is torch.float32


@pytest.mark.parametrize("value", ["fp16", "bf16", "off", "auto"])
def test_not_enabled_is_full_precision_within_any_region(value, amp):
    amp(value)
    with torch.autocast("cpu", dtype=BRAIN):
        with autocast("cpu", enabled=False):
            assert product() is torch.float32
        assert product() is BRAIN
    for device in ("mps", "meta"):
        assert inside(device, enabled=False) == {}
        assert not GradScaler(device, enabled=False).is_enabled()


def test_a_policy_of_full_precision_leaves_the_scripts_own_region_alone(amp):
    amp("off")
    with torch.autocast("cpu", dtype=BRAIN), autocast("cpu"):
        assert product() is BRAIN


def test_a_new_region_computes_with_the_stepped_weights(amp):
    amp("fp16")
    model = torch.nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    outputs = []
    for _ in range(3):
        with autocast("cpu"):
            output = model(torch.ones(1, 2)).sum()
        outputs.append(output.item())
        optimizer.zero_grad()
        output.backward()
        optimizer.step()
    assert outputs == pytest.approx([outputs[0], outputs[0] - 2, outputs[0] - 4], abs=0.02)


# Training


class Recommender(torch.nn.Module):
    def __init__(self, sparse=False):
        super().__init__()
        self.users = torch.nn.Embedding(12, 8, sparse=sparse)
        self.items = torch.nn.Embedding(9, 8, sparse=sparse)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1)
        )

    def forward(self, users, items):
        return self.layers(torch.cat([self.users(users), self.items(items)], dim=1)).squeeze(1)


def made(sparse=False):
    torch.manual_seed(5)
    return Recommender(sparse)


def batches(count=20, size=16):
    generator = torch.Generator().manual_seed(6)
    for _ in range(count):
        users = torch.randint(12, (size,), generator=generator)
        items = torch.randint(9, (size,), generator=generator)
        yield users, items, 1 + 4 * torch.rand(size, generator=generator)


def train_plain(model, optimizer, max_norm, every=1):
    norms = []
    for index, (users, items, ratings) in enumerate(batches()):
        loss = mse(model(users, items), ratings) / every
        loss.backward()
        if (index + 1) % every == 0:
            norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)))
            optimizer.step()
            optimizer.zero_grad()
    return norms


def train_mixed(model, optimizer, max_norm, every=1, device="cpu", **options):
    scaler = GradScaler(device, **options)
    norms = []
    for index, batch in enumerate(batches()):
        users, items, ratings = (tensor.to(device) for tensor in batch)
        with autocast(device):
            loss = mse(model(users, items), ratings) / every
        scaler.scale(loss).backward()
        if (index + 1) % every == 0:
            scaler.unscale_(optimizer)
            norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)))
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    return norms, scaler


def difference(one, two):
    """Largest difference of two models' parameters."""
    pairs = zip(one.parameters(), two.parameters())
    return max(float((a.detach().cpu() - b.detach().cpu()).abs().max()) for a, b in pairs)


OPTIMIZERS = {
    "SGD": lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
    "AdamW": lambda model: torch.optim.AdamW(model.parameters(), lr=0.01),
}


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("name", list(OPTIMIZERS))
@pytest.mark.parametrize("value", ["off", "auto"])
def test_in_full_precision_every_bit_is_that_of_the_plain_loop(value, name, every, amp):
    amp(value)
    plain, mixed = made(), made()
    norms = train_plain(plain, OPTIMIZERS[name](plain), 1.0, every)
    same, scaler = train_mixed(mixed, OPTIMIZERS[name](mixed), 1.0, every)
    assert any(norm > 1.0 for norm in norms), "nothing was clipped"
    assert norms == same
    assert difference(plain, mixed) == 0.0 < difference(plain, made())
    assert scaler.state_dict() == {}


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("value, tolerance", [("fp16", 2e-3), ("bf16", 2e-2)])
def test_in_half_precision_the_loop_agrees_with_the_plain_one(value, tolerance, every, amp):
    amp(value)
    plain, mixed = made(), made()
    norms = train_plain(plain, torch.optim.SGD(plain.parameters(), lr=0.05), 1.0, every)
    optimizer = torch.optim.SGD(mixed.parameters(), lr=0.05)
    close, scaler = train_mixed(mixed, optimizer, 1.0, every, init_scale=1024.0)
    assert any(norm > 1.0 for norm in norms), "nothing was clipped"
    assert close == pytest.approx(norms, rel=10 * tolerance)
    assert 0 < difference(plain, mixed) < tolerance
    assert difference(plain, made()) > 5 * tolerance
    assert scaler.get_scale() == (1024.0 if value == "fp16" else 1.0)


@pytest.mark.parametrize("value", ["fp16", "off"])
def test_two_losses_weigh_what_they_did(value, amp):
    amp(value)
    gradients = []
    for mixed in (False, True):
        model = made()
        users, items, ratings = next(batches())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = GradScaler("cpu", init_scale=256.0, enabled=mixed)
        with autocast("cpu", enabled=mixed):
            predictions = model(users, items)
            loss, penalty = mse(predictions, ratings), predictions.float().pow(2).mean()
        scaler.scale(loss).backward(retain_graph=True)
        scaler.scale(penalty).backward()
        scaler.unscale_(optimizer)
        gradients.append(torch.cat([w.grad.flatten() for w in model.parameters()]))
    torch.testing.assert_close(*gradients, rtol=0.02, atol=2e-3)


@pytest.mark.parametrize("unscale", [False, True])
def test_sparse_gradients(unscale, amp):
    amp("fp16")
    tables = []
    for mixed in (False, True):
        model = made(sparse=True)
        tables_of = [model.users.weight, model.items.weight]
        optimizer = torch.optim.SparseAdam(tables_of, lr=0.01)
        scaler = GradScaler("cpu", init_scale=1024.0, enabled=mixed)
        users, items, ratings = next(batches())
        users, items = users.clamp(max=5), items.clamp(max=5)  # some rows often, some never
        for _ in range(3):
            optimizer.zero_grad()
            with autocast("cpu", enabled=mixed):
                loss = mse(model(users, items), ratings)
            scaler.scale(loss).backward()
            if unscale:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
        assert model.users.weight.grad.is_sparse
        assert torch.equal(model.users.weight[6:], made().users.weight[6:])
        tables.append(torch.cat([table.detach() for table in tables_of]))
    assert 0 < float((tables[0] - tables[1]).abs().max())
    torch.testing.assert_close(*tables, rtol=0, atol=2e-3)


def test_two_optimizers_and_one_update(amp):
    amp("fp16")
    first, second = parameter(), parameter()
    one, two = torch.optim.SGD([first], lr=1.0), torch.optim.SGD([second], lr=1.0)
    scaler = GradScaler("cpu", init_scale=8.0)
    for gradient in (1.0, math.inf, 1.0):
        one.zero_grad()
        two.zero_grad()
        scaler.scale((first * 2).sum() + (second * gradient).sum()).backward()
        scaler.unscale_(one)
        assert first.grad.tolist() == [2.0, 2.0]
        scaler.step(one)
        scaler.step(two)
        scaler.update()
    assert first.tolist() == [-5.0, -5.0]
    assert second.tolist() == [-1.0, -1.0]
    assert scaler.get_scale() == 4.0


# Steps that are skipped


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_an_overflow_skips_the_step_and_the_schedule_waits(bad, fused, clip, amp):
    amp("fp16")
    model = made()
    try:
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=fused)
    except RuntimeError as error:
        pytest.skip(str(error))
    scaler = GradScaler("cpu", init_scale=1024.0)
    scheduler = OneCycle(optimizer, total_steps=20)
    seen = []
    for index, (users, items, ratings) in enumerate(batches(6)):
        before, rate = copy.deepcopy(model), optimizer.param_groups[0]["lr"]
        optimizer.zero_grad()
        with autocast("cpu"):
            loss = mse(model(users, items), ratings)
        scaler.scale(loss).backward()
        if index in (0, 1, 3):
            model.layers[0].weight.grad[0, 0] = bad
        if clip:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        skipped = difference(before, model) == 0.0
        assert skipped is (optimizer.param_groups[0]["lr"] == rate) is (index in (0, 1, 3))
        seen.append((scaler.get_scale(), scheduler.last_epoch))
    assert seen == [(512, 0), (256, 0), (256, 1), (128, 1), (128, 2), (128, 3)]


def test_a_real_overflow_finds_its_scale(amp):
    amp("fp16")
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    scaler = GradScaler("cpu")
    assert scaler.get_scale() == 65536.0
    for _ in range(12):
        optimizer.zero_grad()
        with autocast("cpu"):
            loss = mse(model(torch.ones(2, 4)), torch.full((2, 1), 30.0))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert 64 < scaler.get_scale() < 65536.0
    assert all(weight.isfinite().all() for weight in model.parameters())


def test_a_step_that_the_script_leaves_out_after_unscaling(amp):
    amp("fp16")
    weight = parameter()
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = GradScaler("cpu", init_scale=8.0)
    for gradient in (100.0, math.inf, 1.0):
        optimizer.zero_grad()
        scaler.scale((weight * gradient).sum()).backward()
        scaler.unscale_(optimizer)
        if float(weight.grad.norm()) < 10:
            scaler.step(optimizer)
        scaler.update()
    assert weight.tolist() == [0.0, 0.0]
    assert scaler.get_scale() == 4.0


# Without gradients


@pytest.mark.parametrize("scaled_before", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("value", ["fp16", "off"])
def test_a_frozen_phase_is_what_it_is_in_full_precision(value, fused, scaled_before, amp):
    amp(value)
    frozen, trained = parameter(), parameter()
    try:
        optimizer = torch.optim.Adam([frozen], lr=0.1, weight_decay=0.1, fused=fused)
    except RuntimeError as error:
        pytest.skip(str(error))
    scheduler = OneCycle(optimizer, total_steps=20)
    scaler = GradScaler("cpu", init_scale=8.0)
    if scaled_before:
        scaler.scale(trained.sum()).backward()
    for _ in range(3):
        scaler.unscale_(optimizer)
        assert scaler.step(optimizer) is None
        scaler.update()
        scheduler.step()
    assert frozen.tolist() == [1.0, 1.0]
    assert scheduler.last_epoch == 3, "the optimizer was not stepped"
    assert scaler.get_scale() == (8.0 if value == "fp16" else 1.0)
    scaled_step(scaler, optimizer, unscale=True)  # and then the phase ends
    assert frozen.tolist() != [1.0, 1.0]


def test_one_of_two_optimizers_is_frozen(amp):
    amp("fp16")
    frozen, weight = parameter(), parameter()
    one, two = torch.optim.SGD([frozen], lr=1.0), torch.optim.SGD([weight], lr=1.0)
    scaler = GradScaler("cpu", init_scale=8.0)
    for gradient in (1.0, math.inf):
        two.zero_grad()
        scaler.scale((weight * gradient).sum()).backward()
        scaler.unscale_(one)
        scaler.unscale_(two)
        scaler.step(one)
        scaler.step(two)
        scaler.update()
    assert (frozen.tolist(), weight.tolist()) == ([1.0, 1.0], [0.0, 0.0])
    assert scaler.get_scale() == 4.0


def test_update_with_nothing_to_go_by_changes_nothing(amp):
    amp("fp16")
    optimizer = torch.optim.SGD([parameter()], lr=1.0)
    scaler = GradScaler("cpu", init_scale=8.0, growth_interval=2)
    for _ in range(5):
        scaler.update()
    scaled_step(scaler, optimizer)
    for _ in range(5):
        scaler.update()
    assert scaler.get_scale() == 8.0, "an empty update counted towards the growth"
    scaled_step(scaler, optimizer)
    assert scaler.get_scale() == 16.0
    scaler.update(2.0)
    assert scaler.get_scale() == 2.0


# Wrong use


def test_unscaling_twice_or_after_the_step_is_torchs_error(amp):
    amp("fp16")
    weight = parameter()
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = GradScaler("cpu")
    scaler.scale(weight.sum()).backward()
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.unscale_(optimizer)
    assert weight.grad.tolist() == [1.0, 1.0]
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="after step"):
        scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.step(optimizer)


def test_a_loss_that_was_never_scaled_is_torchs_error(amp):
    amp("fp16")
    weight = parameter()
    weight.sum().backward()
    with pytest.raises(AssertionError, match="scaler.scale"):
        GradScaler("cpu").step(torch.optim.SGD([weight], lr=1.0))


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.LBFGS])
@pytest.mark.parametrize("with_gradients", [False, True])
def test_a_closure_is_refused_by_an_enabled_scaler(named, make, with_gradients, amp):
    weight = parameter()
    optimizer = make([weight], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (weight**2).sum()
        scaler.scale(loss).backward()
        return loss

    def step():
        if named:
            return scaler.step(optimizer, closure=closure)
        return scaler.step(optimizer, closure)

    amp("fp16")
    scaler = GradScaler("cpu")
    if with_gradients:
        scaler.scale(weight.sum()).backward()
    with pytest.raises(RuntimeError, match="closure.*QUICKWINS_AMP"):
        step()
    assert weight.tolist() == [1.0, 1.0]
    amp("bf16")
    scaler = GradScaler("cpu")
    assert step().item() == 2.0
    assert weight.tolist() != [1.0, 1.0]


def test_a_closure_of_none_is_no_closure(amp):
    amp("fp16")
    weight = parameter(3.0)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = GradScaler("cpu")
    for arguments, named in (((None,), {}), ((), {"closure": None})):
        optimizer.zero_grad()
        scaler.scale(weight.sum()).backward()
        scaler.step(optimizer, *arguments, **named)
        scaler.update()
    assert weight.tolist() == [1.0, 1.0]


# The interface of torch's scaler


def test_arguments_are_torchs_in_torchs_order(amp):
    amp("fp16")
    scaler = GradScaler("cpu", 512.0, 3.0, 0.25, 7, True)
    assert isinstance(scaler, torch.amp.GradScaler)
    assert scaler.state_dict() == torch.amp.GradScaler("cpu", 512.0, 3.0, 0.25, 7).state_dict()
    assert GradScaler("cpu").state_dict() == torch.amp.GradScaler("cpu").state_dict()
    assert not GradScaler("cpu", 512.0, 3.0, 0.25, 7, False).is_enabled()
    assert not GradScaler("cpu", enabled=False).is_enabled()


def test_a_disabled_scaler_does_nothing_and_answers_everything():
    weight = parameter()
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = GradScaler("cpu", growth_factor=3.0, backoff_factor=0.25, growth_interval=7)
    loss = weight.sum()
    assert scaler.scale(loss) is loss
    loss.backward()
    scaler.unscale_(optimizer)
    scaler.unscale_(optimizer)
    assert scaler.step(optimizer, lambda: 7.0) == 7.0
    scaler.step(optimizer)
    scaler.update()
    scaler.update(4.0)
    assert weight.tolist() == [-1.0, -1.0]
    assert (scaler.get_scale(), scaler.state_dict(), scaler.is_enabled()) == (1.0, {}, False)
    assert scaler.get_growth_factor() == 3.0
    assert scaler.get_backoff_factor() == 0.25
    assert scaler.get_growth_interval() == 7


def test_several_outputs_are_scaled(amp):
    amp("fp16")
    outputs = GradScaler("cpu", init_scale=4.0).scale([torch.ones(1), torch.ones(2)])
    assert [output.tolist() for output in outputs] == [[4.0], [4.0, 4.0]]


# Checkpoints


def test_a_saved_scale_goes_on(amp):
    amp("fp16")
    optimizer = torch.optim.SGD([parameter()], lr=1.0)
    scaler = GradScaler("cpu", init_scale=64.0, growth_interval=3)
    scaled_step(scaler, optimizer, math.inf)
    scaled_step(scaler, optimizer)
    buffer = io.BytesIO()
    torch.save(scaler.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    twin = pickle.loads(pickle.dumps(scaler))
    fresh, used = GradScaler("cpu"), GradScaler("cpu")
    scaled_step(used, optimizer)
    for other in (fresh, used):
        other.load_state_dict(state)
    for other in (scaler, fresh, used, twin):
        assert other.get_scale() == 32.0
        scaled_step(other, optimizer)
        scaled_step(other, optimizer)
        assert other.get_scale() == 64.0


@pytest.mark.parametrize("state", [{}, None])
def test_a_checkpoint_without_a_scale_changes_nothing(state, amp):
    amp("fp16")
    scaler = GradScaler("cpu", init_scale=64.0)
    scaled_step(scaler, torch.optim.SGD([parameter()], lr=1.0), math.inf)
    scaler.load_state_dict(state)
    assert scaler.get_scale() == 32.0
    amp("off")
    GradScaler("cpu").load_state_dict(state)


def test_a_disabled_scaler_takes_any_state(amp):
    amp("fp16")
    state = GradScaler("cpu", init_scale=64.0).state_dict()
    amp("off")
    scaler = GradScaler("cpu")
    scaler.load_state_dict(state)
    assert (scaler.get_scale(), scaler.state_dict()) == (1.0, {})


# The copy in a user's repository


def test_works_as_a_package_of_another_name_without_a_word(tmp_path):
    shutil.copytree(
        RUNTIME, tmp_path / "quickwins_runtime", ignore=shutil.ignore_patterns("__pycache__")
    )
    script = tmp_path / "train.py"
    script.write_text(
        "import os, torch\n"
        "from quickwins_runtime import GradScaler, autocast\n"
        "weight = torch.nn.Parameter(torch.ones(2, 2))\n"
        "optimizer = torch.optim.SGD([weight], lr=0.5)\n"
        "for device, mode in (('cuda', 'auto'), ('cpu', 'auto'), ('cpu', 'fp16')):\n"
        "    os.environ['QUICKWINS_AMP'] = mode\n"
        "    scaler = GradScaler(device)\n"
        "    optimizer.zero_grad()\n"
        "    with autocast(device):\n"
        "        output = torch.ones(2, 2) @ weight\n"
        "        loss = output.float().mean()\n"
        "    scaler.scale(loss).backward()\n"
        "    scaler.unscale_(optimizer)\n"
        "    scaler.step(optimizer)\n"
        "    scaler.update()\n"
        "    print(output.dtype, scaler.is_enabled(), scaler.__class__.__module__)\n"
        "print(weight.tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-W", "error::FutureWarning", str(script)],
        cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "torch.float32 False quickwins_runtime.precision",
        "torch.float32 False quickwins_runtime.precision",
        "torch.float16 True quickwins_runtime.precision",
        "[[0.25, 0.25], [0.25, 0.25]]",
    ]


# With a card


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("device", ["cuda", "cuda:0", 0])
@pytest.mark.parametrize("value, dtype", [("auto", HALF), ("bf16", BRAIN), ("off", torch.float32)])
def test_on_a_card_products_have_the_policys_dtype(value, dtype, device, amp):
    if dtype is BRAIN and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("the card has no bfloat16")
    amp(value)
    one = torch.ones(8, 8, device=device)
    with autocast(device):
        assert (one @ one).dtype is dtype
    assert (one @ one).dtype is torch.float32
    assert GradScaler(device).is_enabled() is (dtype is HALF)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("value, tolerance", [("auto", 3e-3), ("bf16", 3e-2), ("off", 1e-3)])
def test_on_a_card_the_loop_agrees_with_the_plain_one(value, tolerance, every, amp):
    if value == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("the card has no bfloat16")
    amp(value)
    plain, mixed = made(), made().to("cuda")
    train_plain(plain, torch.optim.SGD(plain.parameters(), lr=0.05), 1.0, every)
    optimizer = torch.optim.SGD(mixed.parameters(), lr=0.05)
    train_mixed(mixed, optimizer, 1.0, every, device="cuda", init_scale=1024.0)
    assert difference(plain, mixed) < tolerance
    assert difference(plain, made()) > 3 * tolerance


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_on_a_card_an_overflow_skips_the_step_and_the_schedule_waits(fused, unscale):
    weight = torch.nn.Parameter(torch.ones(2, device="cuda"))
    optimizer = torch.optim.Adam([weight], lr=0.01, fused=fused)
    scheduler = OneCycle(optimizer, total_steps=20)
    scaler = GradScaler("cuda", init_scale=8.0)
    seen = []
    for gradient in (math.inf, 1.0, math.nan, 1.0):
        before = weight.detach().clone()
        scaled_step(scaler, optimizer, gradient, unscale)
        scheduler.step()
        assert torch.equal(before, weight) is not math.isfinite(gradient)
        seen.append((scaler.get_scale(), scheduler.last_epoch))
    assert seen == [(4.0, 0), (4.0, 1), (2.0, 1), (2.0, 2)]


@pytest.mark.gpu
@needs_cuda
def test_on_a_card_a_frozen_phase_and_sparse_gradients():
    table = torch.nn.Embedding(9, 4, sparse=True).to("cuda")
    optimizer = torch.optim.SparseAdam(list(table.parameters()), lr=0.1)
    scaler = GradScaler("cuda", init_scale=1024.0)
    before = table.weight.detach().clone()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(before, table.weight)
    with autocast("cuda"):
        loss = table(torch.tensor([1, 1, 2], device="cuda")).sum()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert (before != table.weight).any(1).nonzero().flatten().tolist() == [1, 2]


@pytest.mark.gpu
@needs_cuda
def test_on_a_card_a_loss_that_refuses_float16_is_computed_outside():
    layer = torch.nn.Linear(4, 1).to("cuda")
    scaler = GradScaler("cuda", init_scale=64.0)
    inputs, targets = torch.ones(3, 4, device="cuda"), torch.ones(3, 1, device="cuda")
    with autocast("cuda"):
        predictions = torch.sigmoid(layer(inputs))
        with autocast("cuda", enabled=False):
            loss = torch.nn.functional.binary_cross_entropy(predictions.float(), targets)
    scaler.scale(loss).backward()
    assert loss.dtype is torch.float32
    assert layer.weight.grad.isfinite().all()
