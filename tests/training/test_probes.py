"""Probes say what flows through a model, and a run with them is the run without them."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from normlab import config
from normlab.archive import tags
from normlab.archive.events import read_events
from normlab.archive.record import RunRecord
from normlab.config.run_spec import RunSpec
from normlab.config.schema import ModelConfig
from normlab.model.gpt import GPT
from normlab.norms import DynamicTanh
from normlab.training import run
from normlab.training.build import build_model
from normlab.training.checkpoints import load_weights
from normlab.training.probes import output_change, probe_initialization
from normlab.training.run import train
from run_equality import assert_same_run, list_all_steps, list_steps
from tiny_run import TINY, InterruptingDisplay, SilentDisplay
from uniform_placement import uniform_placement

SHAPE = ModelConfig(depth=2, width=8, heads=2, context=6, dropout=0.5)
PLACEMENTS, NORMS = (
    sorted(path.stem for path in (config.conf_folder() / group).glob("*.yaml"))
    for group in ("placement", "norm")
)


def batch(vocabulary: int = 11, sequences: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(vocabulary, (sequences, 7), generator=generator)
    return drawn[:, :-1], drawn[:, 1:]


@torch.no_grad()
def by_hand(model: GPT, tokens: torch.Tensor) -> dict[tuple[str, str], float]:
    """A pre-norm GPT written down once more, sequence by sequence and head by head."""
    w = dict(model.named_parameters())
    found: dict[tuple[str, str], list[torch.Tensor]] = {}

    def keep(quantity: str, site: str, value: torch.Tensor) -> None:
        found.setdefault((quantity, site), []).append(value)

    for sequence in tokens:
        x = w["embedding.weight"][sequence] + w["positions.weight"][: len(sequence)]
        keep("stream", "embedding", x)
        for l in range(SHAPE.depth):
            entered, name = x, f"blocks.{l}.attention"
            read = torch.tanh(w[f"{name}.input.alpha"] * x)
            keep("read", f"block_0{l + 1}/attention", read)
            q, k, v = (read @ w[f"{name}.sublayer.qkv.weight"].T).split(8, dim=1)
            heads = []
            for h in (slice(0, 4), slice(4, 8)):
                rows = []
                for t in range(len(sequence)):
                    logits = k[: t + 1, h] @ q[t, h] / 4**0.5
                    p = logits.exp() / logits.exp().sum()
                    keep("logit", f"block_0{l + 1}/attention", logits.max())
                    keep("entropy", f"block_0{l + 1}/attention", -(p * p.log()).sum())
                    rows.append(p @ v[: t + 1, h])
                heads.append(torch.stack(rows))
            gave = torch.cat(heads, 1) @ w[f"{name}.sublayer.out.weight"].T
            keep("gave", f"block_0{l + 1}/attention", gave)
            x = x + gave
            keep("stream", f"block_0{l + 1}/attention", x)
            name = f"blocks.{l}.feedforward"
            read = torch.tanh(w[f"{name}.input.alpha"] * x)
            inner = nn.functional.gelu(read @ w[f"{name}.sublayer.up.weight"].T)
            x = x + inner @ w[f"{name}.sublayer.down.weight"].T
            keep("stream", f"block_0{l + 1}/feedforward", x)
            cosines = (entered * x).sum(1) / (entered.norm(dim=1) * x.norm(dim=1))
            keep("angle", f"block_0{l + 1}", cosines.acos() / math.pi)
    return _summed(found)


def _summed(found: dict[tuple[str, str], list[torch.Tensor]]) -> dict[tuple[str, str], float]:
    numbers = {}
    for (quantity, site), values in found.items():
        every = torch.stack(values)
        match quantity:
            case "stream":
                numbers["stream_rms", site] = every.square().mean().sqrt()
                numbers["stream_max", site] = every.abs().max()
                centred = every - every.mean(-1, keepdim=True)
                numbers["stream_variance", site] = centred.square().mean()
            case "gave":
                numbers["output_rms", site] = every.square().mean().sqrt()
                numbers["output_max", site] = every.abs().max()
            case "read":
                numbers["input_rms", site] = every.square().mean().sqrt()
            case "logit":
                numbers["attention_logit", site] = every.max()
            case "entropy":
                numbers["attention_entropy", site] = every.mean()
            case "angle":
                numbers["angle", site] = every.mean()
    return {key: float(value) for key, value in numbers.items()}


def stirred() -> GPT:
    """A model whose activations are large enough for tanh to bend them."""
    model = GPT(SHAPE, uniform_placement(input=DynamicTanh), 11, seed=0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.mul_(30.0 if p.dim() == 2 else 1.0)
            if name.endswith("alpha"):
                p.fill_(1.5)
    return model


def test_readings_are_those_of_the_model_written_down_once_more() -> None:
    model = stirred()
    found = probe_initialization(model, batch())
    expected = by_hand(model, batch()[0])
    assert len(expected) > 20
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=2e-4, abs=1e-6), key


def test_gradients_and_the_loss_are_those_of_autograd() -> None:
    model = stirred().eval()
    tokens, targets = batch()
    found = probe_initialization(model, (tokens, targets))
    loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
    assert found["loss", "model"] == pytest.approx(loss.item(), rel=1e-5)
    for block in (0, 1):
        for name in ("attention", "feedforward"):
            weights = list(getattr(model.blocks[block], name).sublayer.parameters())
            grads = torch.autograd.grad(loss, weights, retain_graph=True)
            length = math.sqrt(sum(float(g.double().square().sum()) for g in grads))
            site = f"block_0{block + 1}/{name}"
            assert found["gradient_norm", site] == pytest.approx(length, rel=1e-4)


def test_the_gradient_by_the_stream_is_that_of_moving_the_stream() -> None:
    model = stirred().eval().double()
    tokens, targets = batch()
    found = probe_initialization(model, (tokens, targets))
    moved = torch.zeros(3, 6, 8, dtype=torch.float64, requires_grad=True)
    hook = model.blocks[1].attention.register_forward_hook(lambda m, given, out: out + moved)
    nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten()).backward()
    hook.remove()
    length = float(moved.grad.norm())  # type: ignore[union-attr]
    assert found["stream_gradient", "block_02/attention"] == pytest.approx(length, rel=1e-4)


def test_alpha_gain_and_saturation_of_any_norm_that_has_them() -> None:
    class Mine(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.alpha = nn.Parameter(torch.tensor(3.0))
            self.shift = nn.Parameter(torch.tensor(0.5))
            self.weight = nn.Parameter(torch.arange(width).float())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.alpha * x + self.shift)

    model = GPT(SHAPE, uniform_placement(input=Mine, final=nn.LayerNorm), 11, seed=0)
    with torch.no_grad():
        model.embedding.weight.mul_(30)
    found = probe_initialization(model, batch())
    tokens = batch()[0]
    x = (model.embedding.weight[tokens] + model.positions.weight[:6]).detach()  # type: ignore[union-attr]
    share = ((3 * x + 0.5).abs() > 2).float().mean().item()
    assert 0.05 < share < 0.95
    assert found["saturation", "block_01/attention/input"] == pytest.approx(share)
    assert found["alpha", "block_02/feedforward/input"] == 3
    assert found["gain_mean", "block_01/attention/input"] == pytest.approx(3.5)
    assert found["gain_std", "block_01/attention/input"] == pytest.approx(5.25**0.5)
    assert found["gain_mean", "final"] == 1
    assert ("saturation", "final") not in found


def test_measuring_leaves_a_model_as_it_was() -> None:
    model = stirred()
    model.blocks[0].eval()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    model.head_gradient = model.embedding.weight.grad = torch.ones_like(model.embedding.weight)
    state = torch.get_rng_state()
    assert probe_initialization(model, batch()) == probe_initialization(model, batch())
    assert output_change(model, batch()[0], 0.1) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert torch.equal(model.embedding.weight.grad, torch.ones_like(model.embedding.weight))
    assert all(p.grad is None for n, p in model.named_parameters() if n != "embedding.weight")
    assert not any(module._forward_hooks for module in model.modules())


def test_the_output_changes_with_the_square_of_a_small_perturbation() -> None:
    model = GPT(SHAPE, uniform_placement(input=nn.LayerNorm, final=nn.LayerNorm), 11, seed=0)
    small, twice = (output_change(model, batch()[0], delta) for delta in (1e-3, 2e-3))
    assert twice / small == pytest.approx(4, rel=0.02)


def test_only_the_blocks_are_moved() -> None:
    """Matrices of zeros have an RMS of 0 and stay; embedding and head would change the output."""
    model = GPT(SHAPE, uniform_placement(input=nn.LayerNorm, final=nn.LayerNorm), 11, seed=0)
    with torch.no_grad():
        for parameter in model.blocks.parameters():
            parameter.zero_()
    assert output_change(model, batch()[0], 1e-2) == 0


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_every_placement_is_measured(placement: str, specified: Callable) -> None:
    spec = specified(*TINY, f"placement={placement}", "norm=layernorm")
    found = probe_initialization(build_model(spec.config, 11), batch())
    assert all(map(math.isfinite, found.values()))
    two = placement in ("residual", "siamese")
    for site in ("embedding", "block_01/attention", "block_02/feedforward"):
        assert found["stream_rms", site] > 0
        assert (("stream_2_rms", site) in found) == two


@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_is_measured(norm: str, specified: Callable) -> None:
    model = build_model(specified(*TINY, f"norm={norm}").config, 11)
    found = probe_initialization(model, batch())
    own = {key for key in found if key[1] == "block_01/attention/input"}
    learned = list(model.blocks[0].attention.input.parameters())
    assert bool(own) == bool(learned)
    assert all(map(math.isfinite, found.values()))


HARD = (
    *TINY,
    "model.dropout=0.1",
    "trainer.accumulate=2",
    "trainer.max_steps=8",
    "norm=dyt",
    "trainer.log_every=3",
)


@pytest.fixture
def here(specified: Callable, tmp_path: Path) -> Callable[..., RunSpec]:
    def spec_in(place: str, *overrides: str) -> RunSpec:
        return specified(*HARD, *overrides, f"output_dir={tmp_path / place}")

    return spec_in


ON = ("probes=on", "probes.every=3")


@pytest.mark.parametrize(
    "overrides",
    [
        ("placement=normformer",),
        ("placement=siamese", "norm=layernorm"),
        ("trainer.gradient_checkpointing=true", "model.attention=explicit"),
        ("model=minimind", "trainer.precision=bf16-mixed"),
    ],
    ids=["normformer", "siamese", "checkpointing", "minimind"],
)
def test_a_run_with_probes_is_the_run_without_them(
    overrides: tuple[str, ...], here: Callable[..., RunSpec]
) -> None:
    overrides = (*overrides, *TINY[:4], "model.kv_heads=null")
    plain, probed = here("plain", *overrides), here("probed", *overrides, *ON)
    assert [train(spec, "", SilentDisplay()).state for spec in (plain, probed)] == ["finished"] * 2
    assert_same_run(plain.folder, probed.folder)
    for tag in (
        tags.probe_tag("stream_rms", "block_02/feedforward"),
        tags.probe_tag("angle", "block_01"),
    ):
        assert list_steps(probed.folder, tag) == [0, 3, 6, 7]
        assert list_steps(plain.folder, tag) == []


def test_probes_off_leave_id_and_record_as_they_were(here: Callable[..., RunSpec]) -> None:
    plain, off, on = here("a"), here("a", "probes=off"), here("a", *ON)
    assert plain.id == off.id != on.id
    assert "probes" not in off.plain
    assert "probes" not in off.choices
    assert on.plain["probes"] == {"every": 3}
    assert on.choices["probes"] == "on"


def test_the_id_of_a_run_is_what_it_was_before_there_were_probes(specified: Callable) -> None:
    text = ("data=shakespeare", "budget=standard", "optimizer.lr=1e-3")
    assert specified(*text).id == "c82b874b"
    assert specified(*text, "norm=layernorm", "placement=post").id == "f20eabb4"


def test_a_probed_run_that_was_stopped_writes_every_point_once(
    here: Callable[..., RunSpec],
) -> None:
    whole, stopped = (here(place, *ON, "trainer.log_every=1") for place in ("whole", "stopped"))
    train(whole, "", SilentDisplay())
    for after in (4, 7):
        with pytest.raises(KeyboardInterrupt):
            train(stopped, "", InterruptingDisplay(after))
    assert train(stopped, "", SilentDisplay()).resumed_at == [4, 7]
    assert_same_run(whole.folder, stopped.folder)
    one, other = (read_events(spec.folder).scalars for spec in (whole, stopped))
    assert one.keys() == other.keys()
    steps = list_all_steps(whole.folder)
    assert steps == list_all_steps(stopped.folder)
    for tag in (tag for tag in one if tag.startswith(tags.PROBES)):
        assert tag in steps
        assert one[tag].values.tolist() == other[tag].values.tolist()


def test_updates_and_gradients_are_those_of_the_step(here: Callable[..., RunSpec]) -> None:
    spec = here("one", *ON, "trainer.max_steps=1", "norm=none", "trainer.gradient_clip=1e-3")
    train(spec, "", SilentDisplay())
    scalars = read_events(spec.folder).scalars
    before = build_model(spec.config, 8).state_dict()
    after = load_weights(spec.folder / "checkpoints" / "last.ckpt")
    names = [name for name in before if name.startswith("blocks.1.feedforward.sublayer")]
    moved, own = (
        math.sqrt(sum(float(of(name).square().sum()) for name in names))
        for of in (lambda n: after[n] - before[n], lambda n: before[n])
    )
    ratio = scalars[tags.probe_tag("update_ratio", "block_02/feedforward")].values
    assert ratio.tolist() == pytest.approx([moved / own], rel=1e-3)
    # Before clipping, and all sites together are the whole model.
    norms = [one.values[0] for tag, one in scalars.items() if "/gradient_norm/" in tag]
    total = scalars[tags.GRADIENT_NORM].values[0]
    assert total > 1e-3
    assert math.sqrt(sum(norm**2 for norm in norms)) == pytest.approx(total, rel=1e-5)


def test_histograms_and_a_page_of_probes(here: Callable[..., RunSpec]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.custom_scalar import layout_pb2

    spec = here("shown", *ON)
    train(spec, "", SilentDisplay())
    events = EventAccumulator(str(spec.folder), {"histograms": 0, "tensors": 0}).Reload()
    shown = events.Histograms(tags.probe_tag("gain_distribution", "block_01/attention/input"))
    assert [one.step for one in shown] == [0, 3, 6, 7]
    first = shown[0].histogram_value
    assert (first.min, first.max, first.num) == (1, 1, 16)
    assert shown[-1].histogram_value.max > 1
    (written,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(written.tensor_proto.string_val[0])
    pages = {page.title: page for page in layout.category}
    charts = [tag for chart in pages["Probes"].chart for tag in chart.multiline.tag]
    assert tags.probe_tag("stream_rms", ".*") in charts


def test_a_diverged_run_keeps_its_probes(here: Callable[..., RunSpec]) -> None:
    spec = here("wild", *ON, "optimizer.lr=1e30", "schedule.warmup=0", "norm=none")
    assert train(spec, "", SilentDisplay()).state == "diverged"
    assert RunRecord.read(spec.folder).diverged_step is not None
    rms = read_events(spec.folder).scalars[tags.probe_tag("stream_rms", "block_01/attention")]
    assert math.isfinite(rms.values[0])


def test_probes_measure_what_is_compiled(
    here: Callable[..., RunSpec], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    compiling = run.compile_model
    strict = torch._dynamo.config.patch(error_on_recompile=True)

    def strictly(*arguments: Any) -> None:
        compiling(*arguments)
        strict.__enter__()
        request.addfinalizer(lambda: strict.__exit__(None, None, None))

    extra = ("trainer.compile=true", "trainer.accumulate=1", "model.depth=1")
    plain, probed = here("plain", *extra), here("probed", *extra, *ON)
    assert train(plain, "", SilentDisplay()).reason is None
    monkeypatch.setattr(run, "compile_model", strictly)
    assert train(probed, "", SilentDisplay()).reason is None
    assert_same_run(plain.folder, probed.folder)
    assert list_steps(probed.folder, tags.probe_tag("angle", "block_01")) == [0, 3, 6, 7]


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "often"])
def test_another_interval_is_refused(value: str, train_py: Callable, tmp_path: Path) -> None:
    answer = train_py(f"probes.every={value}", f"output_dir={tmp_path}")
    assert answer.code == 2
    assert "probes.every" in answer.err
    assert len(answer.err.splitlines()) == 1


def test_the_sites_of_a_block_are_in_the_order_of_its_sublayers() -> None:
    placement = replace(uniform_placement(), order=("feedforward", "attention"))
    found = probe_initialization(GPT(SHAPE, placement, 11, 0), batch())
    for quantity in (tags.PARAMETER_GRADIENT, tags.STREAM_RMS):
        sites = [site for measured, site in found if measured == quantity and "/" in site]
        assert sites == [
            f"block_0{block}/{sublayer}" for block in (1, 2) for sublayer in placement.order
        ]
