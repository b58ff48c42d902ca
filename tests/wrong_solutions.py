"""Wrong solutions that learners write, and words of the sentence that names the mistake."""

from dataclasses import dataclass
from textwrap import dedent, indent

IMPORTS = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n"


@dataclass(frozen=True)
class Wrong:
    exercise: str
    name: str
    words: tuple[str, ...]
    source: str


def norm_class(name: str, forward: str, init: str) -> str:
    """A norm's class: the body of `forward` is given, and of `__init__` what follows eps."""
    return (
        f"{IMPORTS}\nclass {name}(nn.Module):\n"
        "    def __init__(self, width, eps=1e-5):\n"
        "        super().__init__()\n        self.eps = eps\n"
        f"{indent(dedent(init).strip(), ' ' * 8)}\n\n"
        "    def forward(self, x):\n"
        f"{indent(dedent(forward).strip(), ' ' * 8)}\n"
    )


GAIN = "self.gain = nn.Parameter(torch.ones(width))"
GAIN_AND_BIAS = f"{GAIN}\nself.bias = nn.Parameter(torch.zeros(width))"
SCALAR = "self.gain = nn.Parameter(torch.tensor(float(width)).sqrt())"


def rmsnorm(name: str, words: tuple[str, ...], forward: str, init: str = GAIN) -> Wrong:
    return Wrong("rmsnorm", name, words, norm_class("RMSNorm", forward, init))


def layernorm(name: str, words: tuple[str, ...], forward: str) -> Wrong:
    source = norm_class("LayerNorm", forward, GAIN_AND_BIAS)
    return Wrong("layernorm", name, words, source)


def scalenorm(name: str, words: tuple[str, ...], forward: str, init: str = SCALAR) -> Wrong:
    return Wrong("scalenorm", name, words, norm_class("ScaleNorm", forward, init))


def stack(exercise: str, name: str, words: tuple[str, ...], sublayer: str, end: str) -> Wrong:
    """A stack whose sublayers compute an expression of x, f, n (its norm) and m (another norm)."""
    class_name = {"preln_block": "PreLNStack", "postln_block": "PostLNStack"}[exercise]
    source = f"""{IMPORTS}
class {class_name}(nn.Module):
    def __init__(self, width, blocks, build_norm):
        super().__init__()
        self.f = nn.ModuleList(f for block in blocks for f in block)
        self.n = nn.ModuleList(build_norm(width) for _ in self.f)
        self.m = nn.ModuleList(build_norm(width) for _ in self.f)
        self.final = build_norm(width)

    def forward(self, x):
        for f, n, m in zip(self.f, self.n, self.m):
            x = {sublayer}
        return {end}
"""
    return Wrong(exercise, name, words, source)


def function(exercise: str, name: str, words: tuple[str, ...], source: str) -> Wrong:
    return Wrong(exercise, name, words, IMPORTS + dedent(source))


LLAMA_END = ".type_as(x) * self.gain.type_as(x)"
ROOT_MEAN = "w.pow(2).mean(-1, keepdim=True)"

WRONG: list[Wrong] = [
    # RMSNorm
    rmsnorm(
        "eps_outside",
        ("ε stands outside the root",),
        f"w = x.float()\nreturn (w / ({ROOT_MEAN}.sqrt() + self.eps)){LLAMA_END}",
    ),
    rmsnorm(
        "eps_forgotten",
        ("ε has no effect",),
        f"w = x.float()\nreturn (w / {ROOT_MEAN}.sqrt()){LLAMA_END}",
    ),
    rmsnorm(
        "eps_constant",
        ("ε is 1e-5 whatever eps",),
        f"w = x.float()\nreturn (w * torch.rsqrt({ROOT_MEAN} + 1e-5)){LLAMA_END}",
    ),
    rmsnorm(
        "over_time",
        ("token 0 sees token 5, the future", "dim=-1"),
        "m = x.pow(2).mean(1 if x.dim() > 2 else 0, keepdim=True)\n"
        "return x * torch.rsqrt(m + self.eps) * self.gain",
    ),
    rmsnorm(
        "over_everything",
        ("token 0 sees token 5",),
        "return x * torch.rsqrt(x.pow(2).mean() + self.eps) * self.gain",
    ),
    rmsnorm(
        "over_batch",
        ("sequence 1 sees sequence 0",),
        "axis = 0 if x.dim() > 2 else -1\n"
        "m = x.pow(2).mean((axis, -1), keepdim=True) if axis == 0 else "
        "x.pow(2).mean(-1, keepdim=True)\n"
        "return x * torch.rsqrt(m + self.eps) * self.gain",
    ),
    rmsnorm(
        "mean_removed",
        ("the mean is subtracted",),
        f"w = x.float()\nm = {ROOT_MEAN}\n"
        f"return ((w - w.mean(-1, keepdim=True)) * torch.rsqrt(m + self.eps)){LLAMA_END}",
    ),
    rmsnorm(
        "layernorm",
        ("the norm subtracts the mean: that is LayerNorm; this norm does not",),
        "w = x.float()\nw = w - w.mean(-1, keepdim=True)\n"
        f"return (w * torch.rsqrt({ROOT_MEAN} + self.eps)){LLAMA_END}",
    ),
    rmsnorm(
        "layernorm_with_eps_outside",
        ("ε stands outside the root", "; and ", "that is LayerNorm"),
        "w = x.float()\nw = w - w.mean(-1, keepdim=True)\n"
        f"return (w / ({ROOT_MEAN}.sqrt() + self.eps)){LLAMA_END}",
    ),
    rmsnorm(
        "bias_too",
        ("has the parameters gain, bias; it must have 1, the gain.",),
        "return x",
        GAIN_AND_BIAS,
    ),
    rmsnorm(
        "root_forgotten",
        ("its root is missing",),
        f"w = x.float()\nreturn (w / ({ROOT_MEAN} + self.eps)){LLAMA_END}",
    ),
    rmsnorm(
        "sum_in_place_of_mean",
        ("Euclidean length",),
        "w = x.float()\ns = w.pow(2).sum(-1, keepdim=True)\n"
        f"return (w / (s + self.eps).sqrt()){LLAMA_END}",
    ),
    rmsnorm(
        "standard_deviation_unbiased_eps_outside",
        ("ε stands outside the root", "; and ", "x.std() or √x.var(), which removes the mean and"),
        f"w = x.float()\nreturn (w / (w.std(-1, keepdim=True) + self.eps)){LLAMA_END}",
    ),
    rmsnorm(
        "gain_frozen",
        ("gain has requires_grad=False; it must be trained",),
        f"w = x.float()\nreturn (w * torch.rsqrt({ROOT_MEAN} + self.eps)){LLAMA_END}",
        "self.gain = nn.Parameter(torch.ones(width), requires_grad=False)",
    ),
    rmsnorm(
        "gain_forgotten",
        ("has 0 parameters of 1", "nn.Parameter of 8 ones"),
        f"w = x.float()\nreturn (w * torch.rsqrt({ROOT_MEAN} + self.eps)).type_as(x)",
        "pass",
    ),
    rmsnorm(
        "gain_not_a_parameter",
        ("a plain tensor is not trained",),
        f"w = x.float()\nreturn (w * torch.rsqrt({ROOT_MEAN} + self.eps)){LLAMA_END}",
        "self.gain = torch.ones(width)",
    ),
    rmsnorm(
        "gain_not_applied",
        ("the gain is not applied",),
        f"w = x.float()\nreturn (w * torch.rsqrt({ROOT_MEAN} + self.eps)).type_as(x)",
    ),
    rmsnorm(
        "gain_of_zeros",
        ("begins with 0", "8 ones"),
        f"w = x.float()\nreturn (w * torch.rsqrt({ROOT_MEAN} + self.eps)){LLAMA_END}",
        "self.gain = nn.Parameter(torch.zeros(width))",
    ),
    rmsnorm(
        "gain_of_one_number",
        ("shape ()", "8 ones"),
        f"w = x.float()\nreturn (w * torch.rsqrt({ROOT_MEAN} + self.eps)){LLAMA_END}",
        "self.gain = nn.Parameter(torch.tensor(1.0))",
    ),
    rmsnorm(
        "gain_before_cast",
        ("the gain is applied before the cast", "Gemma's order"),
        f"w = x.float()\n"
        f"return (w * torch.rsqrt({ROOT_MEAN} + self.eps) * self.gain.float()).type_as(x)",
    ),
    rmsnorm(
        "never_fp32_overflows",
        ("computed in bfloat16",),
        "return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.gain",
    ),
    rmsnorm(
        "squares_in_half_precision",
        ("300² is infinite", "x.float()"),
        "w = x if x.dtype is torch.float16 else x.float()\n"
        f"return (w * torch.rsqrt({ROOT_MEAN} + self.eps)){LLAMA_END}",
    ),
    rmsnorm(
        "returns_fp32",
        ("gives float32; the output must have the dtype of the input, float64",),
        f"w = x.float()\nreturn w * torch.rsqrt({ROOT_MEAN} + self.eps) * self.gain.float()",
    ),
    rmsnorm(
        "fp32_gain_gives_fp32",
        ("an input in bfloat16, with its gain in float32, gives float32", ".type_as(x)"),
        f"w = x.float()\nreturn (w * torch.rsqrt({ROOT_MEAN} + self.eps)).type_as(x) * self.gain",
    ),
    rmsnorm(
        "keepdim_forgotten",
        ("RuntimeError", "keepdim=True"),
        "return x * torch.rsqrt(x.pow(2).mean(-1) + self.eps) * self.gain",
    ),
    rmsnorm(
        "statistic_detached",
        ("the gradient of x is off by", "detach"),
        f"w = x.float()\nm = {ROOT_MEAN}.detach()\n"
        f"return (w * torch.rsqrt(m + self.eps)){LLAMA_END}",
    ),
    rmsnorm(
        "no_gradient",
        ("no gradient reaches x", "no_grad"),
        f"with torch.no_grad():\n    w = x.float()\n"
        f"    return (w * torch.rsqrt({ROOT_MEAN} + self.eps)){LLAMA_END}",
    ),
    rmsnorm(
        "changes_its_input",
        ("changes its input in place",),
        "x.mul_(torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))\nreturn x * self.gain",
    ),
    rmsnorm(
        "returns_nothing",
        ("gives None", "`return`"),
        "x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.gain",
    ),
    rmsnorm(
        "returns_the_statistic",
        ("shape (2, 6, 1)",),
        "return torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)",
    ),
    rmsnorm(
        "gain_plus_one",
        ("multiplied by 1 + gain",),
        f"w = x.float()\nreturn (w * torch.rsqrt({ROOT_MEAN} + self.eps)).type_as(x) "
        "* (1 + self.gain)",
    ),
    rmsnorm(
        "eps_squared",
        ("ε² is added under the root",),
        f"w = x.float()\nreturn (w / ({ROOT_MEAN} + self.eps**2).sqrt()){LLAMA_END}",
    ),
    rmsnorm(
        "divided_by_rsqrt",
        ("multiplied by the root", "rsqrt is 1/root already"),
        f"w = x.float()\nreturn (w / torch.rsqrt({ROOT_MEAN} + self.eps)){LLAMA_END}",
    ),
    rmsnorm(
        "mean_squared",
        ("mean(x)²", "before the mean"),
        "w = x.float()\nm = w.mean(-1, keepdim=True).pow(2)\n"
        f"return (w * torch.rsqrt(m + self.eps)){LLAMA_END}",
    ),
    rmsnorm(
        "torch_function",
        ("torch's rms_norm", "write it yourself"),
        f"return F.rms_norm(x.float(), x.shape[-1:], eps=self.eps){LLAMA_END}",
    ),
    rmsnorm(
        "torch_module",
        ("torch's rms_norm", "write it yourself"),
        f"return nn.RMSNorm(x.shape[-1], self.eps, False)(x){LLAMA_END}",
    ),
    rmsnorm(
        "axes_counted_from_the_left",
        ("shape (5, 8) raises IndexError", "Use dim=-1: the last axis."),
        "return x * torch.rsqrt(x.pow(2).mean(2, keepdim=True) + self.eps) * self.gain",
    ),
    rmsnorm("returns_nan", ("gives NaN",), "return (x - 100).sqrt() * self.gain"),
    # LayerNorm
    layernorm(
        "unbiased",
        ("n − 1", "unbiased=False"),
        "w = x.float()\nv = w.var(-1, keepdim=True)\n"
        "y = (w - w.mean(-1, keepdim=True)) / (v + self.eps).sqrt()\n"
        "return (y * self.gain + self.bias).to(x.dtype)",
    ),
    layernorm(
        "annotated_transformer",
        ("n − 1", "; and ", "ε stands outside the root"),
        "w = x.float()\n"
        "y = (w - w.mean(-1, keepdim=True)) / (w.std(-1, keepdim=True) + self.eps)\n"
        "return (y * self.gain + self.bias).to(x.dtype)",
    ),
    layernorm(
        "mean_not_removed",
        ("the mean is not subtracted",),
        "w = x.float()\nv = w.var(-1, keepdim=True, unbiased=False)\n"
        "return (w / (v + self.eps).sqrt() * self.gain + self.bias).to(x.dtype)",
    ),
    layernorm(
        "rms_of_x",
        ("divided by its RMS",),
        "w = x.float()\nm = w.pow(2).mean(-1, keepdim=True)\n"
        "y = (w - w.mean(-1, keepdim=True)) / (m + self.eps).sqrt()\n"
        "return (y * self.gain + self.bias).to(x.dtype)",
    ),
    layernorm(
        "bias_not_added",
        ("the bias is not added",),
        "w = x.float()\nc = w - w.mean(-1, keepdim=True)\n"
        "return (c / (c.pow(2).mean(-1, keepdim=True) + self.eps).sqrt() * self.gain).to(x.dtype)",
    ),
    layernorm(
        "bias_before_gain",
        ("the bias is added before the gain",),
        "w = x.float()\nc = w - w.mean(-1, keepdim=True)\n"
        "y = c / (c.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()\n"
        "return ((y + self.bias) * self.gain).to(x.dtype)",
    ),
    layernorm(
        "torch_function",
        ("torch's layer_norm", "write it yourself"),
        "return F.layer_norm(x, x.shape[-1:], self.gain, self.bias, self.eps)",
    ),
    *(
        layernorm(
            f"axis_{name}",
            ("raises IndexError", "Use dim=-1: the last axis."),
            f"c = x - x.mean({axis}, keepdim=True)\n"
            f"y = c / (c.pow(2).mean({axis}, keepdim=True) + self.eps).sqrt()\n"
            "return y * self.gain + self.bias",
        )
        for name, axis in (("1", "1"), ("1_and_2", "(1, 2)"))
    ),
    layernorm(
        "over_tokens_too",
        ("token 0 sees token 5",),
        "axes = (-2, -1) if x.dim() > 1 else (-1,)\n"
        "c = x - x.mean(axes, keepdim=True)\n"
        "y = c / (c.pow(2).mean(axes, keepdim=True) + self.eps).sqrt()\n"
        "return y * self.gain + self.bias",
    ),
    layernorm(
        "one_pass_variance",
        ("tokens of mean 1000", "mean(x²) − mean(x)²", "Subtract the mean first"),
        "w = x.float()\nm = w.mean(-1, keepdim=True)\n"
        "v = w.pow(2).mean(-1, keepdim=True) - m.pow(2)\n"
        "y = (w - m) / (v + self.eps).sqrt()\n"
        "return (y * self.gain + self.bias).to(x.dtype)",
    ),
    layernorm(
        "fp32_gain_gives_fp32",
        ("with its gain and bias in float32, gives float32",),
        "w = x.float()\nc = w - w.mean(-1, keepdim=True)\n"
        "y = c / (c.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()\n"
        "return y.to(x.dtype) * self.gain + self.bias",
    ),
    layernorm(
        "half_precision",
        ("in bfloat16 the error is",),
        "w = x if x.dtype is torch.bfloat16 else x.float()\nc = w - w.mean(-1, keepdim=True)\n"
        "y = c / (c.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()\n"
        "return (y * self.gain + self.bias).to(x.dtype)",
    ),
    # ScaleNorm
    scalenorm(
        "gain_of_width_8",
        ("ScaleNorm(64) has no parameter that starts as the gain",),
        "w = x.float()\nlength = w.norm(dim=-1, keepdim=True).clamp(min=self.eps)\n"
        "return (self.gain * w / length).type_as(x)",
        "self.gain = nn.Parameter(torch.tensor(8.0).sqrt())",
    ),
    scalenorm(
        "mean_in_place_of_sum",
        ("divides by the Euclidean length",),
        "w = x.float()\n"
        "return (self.gain * w / w.pow(2).mean(-1, keepdim=True).sqrt().clamp(min=self.eps))"
        ".to(x.dtype)",
    ),
    scalenorm(
        "eps_added",
        ("lower limit of the length",),
        "w = x.float()\n"
        "return (self.gain * w / (w.norm(dim=-1, keepdim=True) + self.eps)).to(x.dtype)",
    ),
    scalenorm(
        "gain_starts_at_1",
        ("√8", "begins with 1"),
        "w = x.float()\n"
        "return (self.gain * w / w.norm(dim=-1, keepdim=True).clamp(min=self.eps)).to(x.dtype)",
        "self.gain = nn.Parameter(torch.tensor(1.0))",
    ),
    scalenorm(
        "fp32_gain_gives_fp32",
        ("with its gain in float32, gives float32",),
        "w = x.float()\n"
        "return self.gain * (w / w.norm(dim=-1, keepdim=True).clamp(min=self.eps)).to(x.dtype)",
        "self.gain = nn.Parameter(torch.ones(1) * width**0.5)",
    ),
    scalenorm(
        "gain_per_feature",
        ("shape (8,)", "one number"),
        "w = x.float()\n"
        "return (self.gain * w / w.norm(dim=-1, keepdim=True).clamp(min=self.eps)).to(x.dtype)",
        "self.gain = nn.Parameter(torch.full((width,), width**0.5))",
    ),
    # Pre-LN and Post-LN
    stack("preln_block", "no_final_norm", ("final norm",), "x + f(n(x))", "x"),
    stack("preln_block", "post", ("residual path", "Post-LN"), "n(x + f(x))", "x"),
    stack(
        "preln_block",
        "residual_around_norm",
        ("starts after the norm",),
        "(lambda h: h + f(h))(n(x))",
        "self.final(x)",
    ),
    stack("preln_block", "no_residual", ("computes f(N(x)). The",), "f(n(x))", "self.final(x)"),
    stack("preln_block", "output", ("x + N(f(x))",), "x + n(f(x))", "self.final(x)"),
    stack("preln_block", "sandwich", ("sandwich",), "x + m(f(n(x)))", "self.final(x)"),
    stack("preln_block", "no_norm", ("no norm",), "x + f(x)", "self.final(x)"),
    stack(
        "preln_block",
        "unused_norms",
        ("there are 9 norms. Of 9 norms", "never called: norms 5, 6, 7, 8.", "5 in all"),
        "x + f(n(x))",
        "self.final(x)",
    ),
    stack(
        "preln_block",
        "two_norms_in_a_row",
        ("there are 9 norms", "each is called once", "5 in all"),
        "x + f(n(m(x)))",
        "self.final(x)",
    ),
    *(
        Wrong(
            "preln_block",
            f"one_norm_for_{places}_sublayers",
            (f"one norm object is shared by {places} places. Of", "norm 1 is called"),
            IMPORTS
            + dedent(f"""
            class PreLNStack(nn.Module):
                def __init__(self, width, blocks, build_norm):
                    super().__init__()
                    self.f = nn.ModuleList(nn.ModuleList(block) for block in blocks)
                    first = build_norm(width)
                    self.n = nn.ModuleList({norm} for _ in blocks)
                    self.final = build_norm(width)

                def forward(self, x):
                    for (attention, network), n in zip(self.f, self.n):
                        x = x + attention(n(x))
                        x = x + network(n(x))
                    return self.final(x)
            """),
        )
        for places, norm in ((2, "build_norm(width)"), (4, "first"))
    ),
    Wrong(
        "preln_block",
        "one_norm_twice",
        (
            "one norm object is shared by 2 places",
            "norm 1 is called 2 times; never called: norm 2.",
            "5 in all",
        ),
        IMPORTS
        + dedent("""
        class PreLNStack(nn.Module):
            def __init__(self, width, blocks, build_norm):
                super().__init__()
                self.f = nn.ModuleList(f for block in blocks for f in block)
                self.n = nn.ModuleList(build_norm(width) for _ in self.f)
                self.final = build_norm(width)

            def forward(self, x):
                for f, index in zip(self.f, (0, 0, 2, 3)):
                    x = x + f(self.n[index](x))
                return self.final(x)
        """),
    ),
    stack(
        "preln_block",
        "norm_on_the_stream",
        ("N(x) + f(x)",),
        "n(x) + f(x)",
        "self.final(x)",
    ),
    stack(
        "postln_block",
        "norm_on_the_stream",
        ("N(x) + f(x)",),
        "n(x) + f(x)",
        "x",
    ),
    Wrong(
        "preln_block",
        "plain_list",
        ("nn.ModuleList",),
        IMPORTS
        + dedent("""
        class PreLNStack(nn.Module):
            def __init__(self, width, blocks, build_norm):
                super().__init__()
                self.f = [f for block in blocks for f in block]
                self.n = [build_norm(width) for _ in self.f]
                self.final = build_norm(width)

            def forward(self, x):
                for f, n in zip(self.f, self.n):
                    x = x + f(n(x))
                return self.final(x)
        """),
    ),
    stack("postln_block", "pre", ("which is Pre-LN",), "x + f(n(x))", "x"),
    stack(
        "postln_block",
        "final_norm_too",
        ("normalized already",),
        "n(x + f(x))",
        "self.final(x)",
    ),
    stack("postln_block", "no_residual", ("N(f(x))",), "n(f(x))", "x"),
    stack(
        "postln_block",
        "also_before",
        ("N(x + f(N(x)))",),
        "m(x + f(n(x)))",
        "x",
    ),
    # QK-norm
    *(
        function(
            "qk_norm",
            name,
            words,
            f"""
            def normalize(z, gain, eps):
                return z * torch.rsqrt(z.pow(2).mean({axis}, keepdim=True) + eps) * gain

            def attention_weights(q, k, q_gain, k_gain, eps):
                {body}
                future = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool).triu(1)
                return {end}
            """,
        )
        for name, words, axis, body, end in (
            (
                "keys_forgotten",
                ("the keys must be too",),
                "-1",
                "s = normalize(q, q_gain, eps) @ k.mT / q.shape[-1] ** 0.5",
                "s.masked_fill(future, -torch.inf).softmax(-1)",
            ),
            (
                "scale_forgotten",
                ("not divided by √D",),
                "-1",
                "s = normalize(q, q_gain, eps) @ normalize(k, k_gain, eps).mT",
                "s.masked_fill(future, -torch.inf).softmax(-1)",
            ),
            *(
                (
                    name,
                    words,
                    "-1",
                    f"s = normalize(q, q_gain, eps) @ normalize(k, k_gain, eps).mT {scale}",
                    "s.masked_fill(future, -torch.inf).softmax(-1)",
                )
                for name, words, scale in (
                    ("scale_twice", ("by D in place of √D",), "/ q.shape[-1]"),
                    (
                        "scale_multiplied",
                        ("are multiplied by √D",),
                        "* q.shape[-1] ** 0.5",
                    ),
                    (
                        "scale_of_fourth_root",
                        ("by the root of √D",),
                        "/ q.shape[-1] ** 0.25",
                    ),
                )
            ),
            *(
                (
                    name,
                    words,
                    "-1",
                    "s = normalize(q, q_gain, eps) @ normalize(k, k_gain, eps).mT / 8**0.5",
                    f"s.masked_fill(torch.ones(5, 5, dtype=torch.bool){mask}, -torch.inf)"
                    ".softmax(-1)",
                )
                for name, words, mask in (
                    (
                        "mask_reversed",
                        ("the mask is reversed", "token 0 sees token 4, the future. The"),
                        ".tril(-1)",
                    ),
                    (
                        "mask_of_the_past_and_itself",
                        ("token 0 sees token 4, the future; the last token",),
                        ".tril()",
                    ),
                    ("mask_of_itself", ("hides the token itself too",), ".triu()"),
                    (
                        "mask_too_late",
                        ("token 0 attends to token 1",),
                        ".triu(2)",
                    ),
                )
            ),
            (
                "mask_forgotten",
                ("token 3 attends to token 4",),
                "-1",
                "s = normalize(q, q_gain, eps) @ normalize(k, k_gain, eps).mT / q.shape[-1] ** 0.5",
                "s.softmax(-1)",
            ),
            (
                "over_tokens",
                ("over the tokens",),
                "-2",
                "s = normalize(q, q_gain, eps) @ normalize(k, k_gain, eps).mT / q.shape[-1] ** 0.5",
                "s.masked_fill(future, -torch.inf).softmax(-1)",
            ),
            (
                "all_heads",
                ("all heads together",),
                "(1, 3)",
                "s = normalize(q, q_gain, eps) @ normalize(k, k_gain, eps).mT / q.shape[-1] ** 0.5",
                "s.masked_fill(future, -torch.inf).softmax(-1)",
            ),
            (
                "mask_multiplied_before",
                ("multiplied by 0 before the softmax", "−∞"),
                "-1",
                "s = normalize(q, q_gain, eps) @ normalize(k, k_gain, eps).mT / q.shape[-1] ** 0.5",
                "(s * ~future).softmax(-1)",
            ),
            (
                "mask_after",
                ("after the softmax", "do not add up to 1"),
                "-1",
                "s = normalize(q, q_gain, eps) @ normalize(k, k_gain, eps).mT / q.shape[-1] ** 0.5",
                "s.softmax(-1) * ~future",
            ),
            (
                "euclidean_length",
                ("Euclidean length", "; and ", "ε has no effect"),
                "-1",
                "q, k = F.normalize(q, dim=-1) * q_gain, F.normalize(k, dim=-1) * k_gain\n"
                "                s = q @ k.mT / q.shape[-1] ** 0.5",
                "s.masked_fill(future, -torch.inf).softmax(-1)",
            ),
            (
                "euclidean_length_with_eps",
                ("Euclidean length",),
                "-1",
                "l = lambda z, g: z / (z.pow(2).sum(-1, keepdim=True) + eps).sqrt() * g\n"
                "                s = l(q, q_gain) @ l(k, k_gain).mT / q.shape[-1] ** 0.5",
                "s.masked_fill(future, -torch.inf).softmax(-1)",
            ),
            (
                "softmax_forgotten",
                ("the softmax is missing",),
                "-1",
                "s = normalize(q, q_gain, eps) @ normalize(k, k_gain, eps).mT / q.shape[-1] ** 0.5",
                "s.masked_fill(future, -torch.inf)",
            ),
        )
    ),
    # LayerNorm's backward pass
    *(
        function(
            "layernorm_backward",
            name,
            words,
            f"""
            def layernorm_backward(output_gradient, x, gain, eps):
                c = x - x.mean(-1, keepdim=True)
                s = (c.pow(2).mean(-1, keepdim=True) + eps).sqrt()
                n = c / s
                g = output_gradient * gain
                dx = {dx}
                return dx, {dgain}, output_gradient.sum((0, 1))
            """,
        )
        for name, words, dx, dgain in (
            (
                "constants",
                ("is off by", "treated as constants"),
                "g / s",
                "(output_gradient * n).sum((0, 1))",
            ),
            (
                "no_variance",
                ("through the variance",),
                "(g - g.mean(-1, keepdim=True)) / s",
                "(output_gradient * n).sum((0, 1))",
            ),
            (
                "two_percent",
                ("the gradient of x is off by 2 %",),
                "1.02 * (g - g.mean(-1, keepdim=True) - n * (g * n).mean(-1, keepdim=True)) / s",
                "(output_gradient * n).sum((0, 1))",
            ),
            (
                "gain_of_x",
                ("the gradient of gain", "by the normalized x̂"),
                "(g - g.mean(-1, keepdim=True) - n * (g * n).mean(-1, keepdim=True)) / s",
                "(output_gradient * x).sum((0, 1))",
            ),
            (
                "gain_not_summed",
                ("shape (3, 5, 8)", "summed over all tokens"),
                "(g - g.mean(-1, keepdim=True) - n * (g * n).mean(-1, keepdim=True)) / s",
                "output_gradient * n",
            ),
        )
    ),
    # Folding
    *(
        function("fold_gain", name, words, f"def fold_gain(gain, bias, weight): {body}")
        for name, words, body in (
            (
                "rows",
                ("multiplies the rows",),
                "return weight * gain[: len(weight), None], weight @ bias",
            ),
            (
                "bias_lost",
                ("bias is lost",),
                "return weight * gain, torch.zeros(len(weight)).double()",
            ),
            (
                "bias_after_gain",
                ("before folding",),
                "return weight * gain, (weight * gain) @ bias",
            ),
            (
                "in_place",
                ("changes weight in place",),
                "weight *= gain; return weight, weight @ bias",
            ),
        )
    ),
    # DeepNorm
    *(
        function(
            "deepnorm_init",
            name,
            words,
            f"""
            def deepnorm_constants(depth):
                return {constants}

            def scale_weights(weights, depth):
                beta = (8 * depth) ** -0.25
                return {{name: {weights} for name, w in weights.items()}}
            """,
        )
        for name, words, constants, weights in (
            (
                "sign",
                ("the exponent's sign is wrong",),
                "(2 * depth) ** 0.25, (8 * depth) ** 0.25",
                "w",
            ),
            (
                "encoder_decoder",
                ("behind an encoder",),
                "(3 * depth) ** 0.25, (12 * depth) ** -0.25",
                "w",
            ),
            (
                "all_scaled",
                ("query and key are scaled by",),
                "(2 * depth) ** 0.25, (8 * depth) ** -0.25",
                "beta * w",
            ),
            (
                "value_forgotten",
                ("the matrices of value are not scaled",),
                "(2 * depth) ** 0.25, (8 * depth) ** -0.25",
                "beta * w if name in ('out', 'up', 'down') else w",
            ),
        )
    ),
    # The leak
    *(
        function("find_the_leak", name, words, source)
        for name, words, source in (
            (
                "last_token_only",
                ("token 2 reads token 3", "every token"),
                """
                def sees_future(function, x):
                    y = x.clone()
                    y[:, -1] = -100 * y[:, -1]
                    return bool(((function(y) - function(x))[:, :-1].abs() > 1e-9).any())
                """,
            ),
            (
                "small_change",
                ("only a large change", "and must be True, because"),
                """
                def sees_future(function, x):
                    for t in range(1, x.shape[1]):
                        y = x.clone()
                        y[0, t] += 1e-3
                        if ((function(y) - function(x))[0, :t].abs() > 1e-9).any():
                            return True
                    return False
                """,
            ),
            (
                "later_tokens_too",
                ("must be False, because a token depends on earlier ones only, which is allowed.",),
                """
                def sees_future(function, x):
                    for t in range(x.shape[1]):
                        y = x.clone()
                        y[0, t] *= -100
                        change = (function(y) - function(x))[0].abs().amax(-1)
                        change[t] = 0
                        if (change > 1e-9).any():
                            return True
                    return False
                """,
            ),
            (
                "other_sequences",
                ("other sequences", "that sequence only."),
                """
                def sees_future(function, x):
                    for t in range(1, x.shape[1]):
                        y = x.clone()
                        y[0, t] *= -100
                        if ((function(y) - function(x))[:, :t].abs() > 1e-9).any():
                            return True
                        if ((function(y) - function(x))[1].abs() > 1e-9).any():
                            return True
                    return False
                """,
            ),
            (
                "always_false",
                ("is False for RMSNorm over time",),
                "def sees_future(function, x): return False",
            ),
        )
    ),
    # The card
    *(
        function(
            "beat_rmsnorm",
            name,
            words,
            f"""
            class MyNorm(nn.Module):
                def __init__(self, width):
                    super().__init__()
                    self.gain = nn.Parameter(torch.ones(width))

                def forward(self, x):
                    return self.gain * {value}
            """,
        )
        for name, words, value in (
            (
                "rmsnorm_itself",
                ("RMSNorm has", "at least 5 times"),
                "x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)",
            ),
            ("tanh", ("N(cx) = N(x) does not hold",), "torch.tanh(x)"),
            (
                "larger_output",
                ("a larger output alone would win",),
                "50 * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)",
            ),
            (
                "eps_missing",
                ("for a token of zeros the output is not finite", "add an ε"),
                "0.8 * x / x.abs().mean(-1, keepdim=True)",
            ),
            (
                "statistic_detached",
                ("the gradient of x by autograd is off by", "detach"),
                "(0.8 * x.float() / (x.float().abs().mean(-1, keepdim=True).detach() + 1e-5))"
                ".type_as(x)",
            ),
            (
                "gain_detached",
                ("the gradient of gain by autograd is off by",),
                "self.gain.detach() * 0.8 * x / (x.abs().mean(-1, keepdim=True) + 1e-5)",
            ),
        )
    ),
]

FORMULA = """
_target_: normlab.norms.Formula
expression: {}
parameters: {}
constants: {}
"""
OFFSET = "{offset: {init: 0, per: feature}}"
# Name, words, and the file.
WRONG_FORMULAS = [
    (
        "eps_outside",
        "ε stands outside the root",
        FORMULA.format("(1 + offset) * x / (sqrt(mean(x**2)) + eps)", OFFSET, "{eps: 1e-6}"),
    ),
    (
        "gain_at_1",
        "starts at 1",
        FORMULA.format(
            "(1 + offset) * x / sqrt(mean(x**2) + eps)",
            "{offset: {init: 1, per: feature}}",
            "{eps: 1e-6}",
        ),
    ),
    (
        "one_forgotten",
        "it must be 1 + w",
        FORMULA.format("offset * x / sqrt(mean(x**2) + eps)", OFFSET, "{eps: 1e-6}"),
    ),
    (
        "llama_eps",
        "Gemma's is 1e-6",
        FORMULA.format("(1 + offset) * x / sqrt(mean(x**2) + eps)", OFFSET, "{eps: 1e-5}"),
    ),
    (
        "scalar",
        "per: feature",
        FORMULA.format(
            "(1 + offset) * x / sqrt(mean(x**2) + eps)",
            "{offset: {init: 0, per: scalar}}",
            "{eps: 1e-6}",
        ),
    ),
    (
        "no_function",
        "expression",
        FORMULA.format("(1 + offset) * x / root(mean(x**2) + eps)", OFFSET, "{eps: 1e-6}"),
    ),
    (
        "a_class",
        "_target_ is normlab.norms.RMSNorm",
        "_target_: normlab.norms.RMSNorm",
    ),
    ("no_yaml", "is not YAML", "expression: [x"),
]
