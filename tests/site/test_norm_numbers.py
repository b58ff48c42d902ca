"""The interactive page computes what normlab's norms compute, in every precision."""

import itertools
import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from browser import BROWSER, browse
from normlab import config
from normlab.config.expressions import evaluate_expression
from normlab.norms import norm_factory

pytestmark = pytest.mark.skipif(not BROWSER, reason="no chromium on the path")

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "learn" / "interactive" / "norms.js"
FILES = {"LayerNorm": "layernorm", "RMSNorm": "rmsnorm", "DyT": "dyt", "L∞": "linf"}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CASES = [
    {"mean": mean, "scale": scale, "outlier": outlier, "eps": eps, "precision": precision}
    | {"everyStep": every_step, "chosen": chosen}
    for (mean, scale, outlier, eps, chosen), precision, every_step in itertools.product(
        [
            (0.0, 1.0, 0.0, 1e-5, 0),
            (3.0, 0.7, 0.0, 1e-5, 3),
            (-1.3, 2.0, 20.0, 1e-5, 3),
            (0.4, 1e-3, 0.0, 1e-5, 6),  # ε acts
            (0.0, 1e-3, 0.0, 1e-1, 2),
            (0.0, 316.0, 0.0, 1e-5, 1),  # squares overflow in fp16
            (1.0, 3e4, 5.0, 1e-5, 1),  # the token itself overflows in fp16
            (0.2, 1e-4, 1.0, 1e-12, 7),
        ],
        DTYPES,
        [False, True],
    )
]
CODE = """
const text = (values) => values.map(String);
document.body.textContent = JSON.stringify(CASES.map((settings) => {
  const token = makeToken(settings);
  return {token: text(token), norms: NORMS.map((norm) => ({
    output: text(outputOf(norm, token, settings)),
    gradient: text(gradientOf(norm, token, settings.eps, settings.chosen)) }))};
}));
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the page's functions give for each case."""
    folder = tmp_path_factory.mktemp("numbers")
    page = folder / "page.html"
    page.write_text(
        f'<!doctype html><link rel="icon" href="data:,"><body></body>'
        f'<script src="{SCRIPT.as_uri()}"></script>'
        f"<script>const CASES = {json.dumps(CASES)};{CODE}</script>",
        encoding="utf-8",
    )
    shown, complaints = browse(page)
    assert complaints == ""
    body = shown.partition("<body>")[2].partition("</body>")[0]
    return list(json.loads(body))


def read_numbers(texts: list[str]) -> Tensor:
    return torch.tensor([float(text.replace("Infinity", "inf")) for text in texts]).double()


def read_settings(name: str) -> dict[str, Any]:
    path = config.conf_folder() / "norm" / f"{FILES[name]}.yaml"
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(path), resolve=True))


def build_norm(name: str, eps: float) -> nn.Module:
    settings = read_settings(name)
    if name == "L∞":
        settings["constants"]["eps"] = eps
    elif "eps" in settings:
        settings["eps"] = eps
    return norm_factory(settings)(8)


def narrow_output(name: str, x: Tensor, eps: float) -> Tensor:
    """Every operation in the dtype of x (8,)."""
    if name == "LayerNorm":
        centered = x - x.mean()
        return centered * torch.rsqrt(centered.square().mean() + eps)
    if name == "RMSNorm":
        module = build_norm(name, eps)
        module.cast = "none"  # type: ignore[assignment]
        return module(x).detach()
    if name == "DyT":
        return torch.tanh(x)
    factor = evaluate_expression(read_settings(name)["constants"]["c"], width=8)
    return x / (factor * x.abs().amax() + eps)


def spacing(values: Tensor, dtype: torch.dtype) -> Tensor:
    """The distance to the next number of this dtype, at least its smallest."""
    info = torch.finfo(dtype)
    return (values.abs() * info.eps).clamp(min=info.tiny * info.eps)


def differences(got: Tensor, expected: Tensor, dtype: torch.dtype) -> Tensor:
    """In units of the last place; 0 where both are the same infinity, or NaN."""
    same = (got == expected) | (got.isnan() & expected.isnan())
    return torch.where(same, 0.0, (got - expected).abs() / spacing(expected, dtype))


def test_the_token_is_rounded_as_torch_rounds(answers: list[dict[str, Any]]) -> None:
    pattern = [0.62, -1.32, 0.18, 1.76, -0.47, -1.12, 0.95, -0.6]
    for case, answer in zip(CASES, answers, strict=True):
        shifted = [value + case["mean"] for value in pattern]
        shifted[3] += case["outlier"]
        exact = torch.tensor([case["scale"] * value for value in shifted], dtype=torch.float64)
        # Through fp32, as the page and as a model whose activations are made in fp32.
        rounded = exact.float().to(DTYPES[str(case["precision"])]).double()
        assert torch.equal(read_numbers(answer["token"]), rounded), case


@pytest.mark.parametrize("number", range(len(FILES)), ids=list(FILES))
def test_the_outputs_are_those_of_the_norms(answers: list[dict[str, Any]], number: int) -> None:
    name = list(FILES)[number]
    for case, answer in zip(CASES, answers, strict=True):
        dtype, eps = DTYPES[str(case["precision"])], float(case["eps"])
        x = read_numbers(answer["token"]).to(dtype)
        narrow = case["everyStep"]
        with torch.no_grad():
            expected = narrow_output(name, x, eps) if narrow else build_norm(name, eps)(x)
        got = read_numbers(answer["norms"][number]["output"])
        # fp32 sums of torch are rounded in another order; in half precision that is no digit.
        limit = 16.0 if dtype is torch.float32 else 2.0 if narrow else 1.0
        assert differences(got, expected.double(), dtype).max() <= limit, (case, got, expected)


@pytest.mark.parametrize("number", range(len(FILES)), ids=list(FILES))
def test_the_gradients_are_those_of_autograd(answers: list[dict[str, Any]], number: int) -> None:
    name = list(FILES)[number]
    for case, answer in zip(CASES, answers, strict=True):
        x = read_numbers(answer["token"]).requires_grad_()
        if not x.isfinite().all():
            continue
        build_norm(name, float(case["eps"])).double()(x)[int(case["chosen"])].backward()
        assert x.grad is not None
        got = read_numbers(answer["norms"][number]["gradient"])
        scale = float(x.grad.abs().max())
        torch.testing.assert_close(got, x.grad, rtol=1e-6, atol=1e-9 * scale, msg=str(case))


def test_half_precision_without_a_cast_loses_the_token(answers: list[dict[str, Any]]) -> None:
    wanted = {"scale": 316.0, "precision": "fp16", "everyStep": True}
    (case,) = [n for n, case in enumerate(CASES) if wanted.items() <= case.items()]
    rms_norm = list(FILES).index("RMSNorm")
    assert set(answers[case]["norms"][rms_norm]["output"]) <= {"0", "-0"}
