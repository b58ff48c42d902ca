"""Right solutions that are written in another way than those of docs/learn/solutions."""

from textwrap import dedent

from wrong_solutions import GAIN_AND_BIAS, IMPORTS, norm_class

RIGHT: list[tuple[str, str, str]] = [
    (
        "rmsnorm",
        "weight_and_vector_norm",
        norm_class(
            "RMSNorm",
            """
            wide = x.to(torch.float64 if x.dtype is torch.float64 else torch.float32)
            length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
            root = (length**2 / x.shape[-1] + self.eps).sqrt()
            return ((wide / root).to(x.dtype) * self.weight).to(x.dtype)
            """,
            "self.weight = nn.Parameter(torch.ones(width))",
        ),
    ),
    (
        "rmsnorm",
        "einsum_and_helper",
        norm_class(
            "RMSNorm",
            """
            def normalize(v):
                square = torch.einsum("...d,...d->...", v, v)[..., None] / v.size(-1)
                return v * (square + self.eps).pow(-0.5)
            return self.scale.to(x.dtype) * normalize(x.float()).type_as(x)
            """,
            "self.scale = nn.Parameter(torch.empty(width))\nnn.init.ones_(self.scale)",
        ),
    ),
    (
        "layernorm",
        "torch_var",
        norm_class(
            "LayerNorm",
            """
            w = x.float()
            v, m = torch.var_mean(w, dim=-1, unbiased=False, keepdim=True)
            return torch.addcmul(
                self.bias.float(), (w - m) * torch.rsqrt(v + self.eps), self.gain.float()
            ).to(x.dtype)
            """,
            GAIN_AND_BIAS,
        ),
    ),
    (
        "layernorm",
        "mean_of_squares",
        norm_class(
            "LayerNorm",
            """
            w = x.double()
            m = w.mean(-1, keepdim=True)
            v = (w * w).mean(-1, keepdim=True) - m * m
            y = (w - m) / (v + self.eps) ** 0.5
            return (y.to(x.dtype) * self.weight + self.beta).to(x.dtype)
            """,
            "self.beta = nn.Parameter(torch.zeros(width))\n"
            "self.weight = nn.Parameter(torch.ones(width))",
        ),
    ),
    (
        "scalenorm",
        "maximum_of_shape_1",
        norm_class(
            "ScaleNorm",
            """
            w = x.float()
            n = torch.maximum(w.square().sum(-1, keepdim=True).sqrt(), torch.tensor(self.eps))
            return (w / n * self.g).to(x.dtype)
            """,
            "self.g = nn.Parameter(torch.ones(1) * width**0.5)",
        ),
    ),
    (
        "layernorm_backward",
        "by_jacobian",
        IMPORTS
        + dedent("""
        def layernorm_backward(output_gradient, x, gain, eps):
            d = x.shape[-1]
            c = x - x.mean(-1, keepdim=True)
            s = ((c**2).sum(-1, keepdim=True) / d + eps) ** 0.5
            n = c / s
            centring = torch.eye(d, dtype=x.dtype) - 1 / d
            outer = n[..., :, None] * n[..., None, :] / d
            jacobian = (centring - outer) / s[..., None]
            dx = torch.einsum("btij,btj->bti", jacobian, output_gradient * gain)
            flat = output_gradient.reshape(-1, d)
            return [dx, (flat * n.reshape(-1, d)).sum(0), flat.sum(0)]
        """),
    ),
    (
        "fold_gain",
        "diagonal_matrix",
        IMPORTS
        + dedent("""
        def fold_gain(gain, bias, weight):
            return weight @ torch.diag(gain), F.linear(bias[None], weight)[0]
        """),
    ),
    (
        "preln_block",
        "module_per_block",
        IMPORTS
        + dedent("""
        class Block(nn.Module):
            def __init__(self, width, attention, feedforward, build_norm):
                super().__init__()
                self.attention, self.feedforward = attention, feedforward
                self.first, self.second = build_norm(width), build_norm(width)

            def forward(self, x):
                h = x + self.attention(self.first(x))
                return h + self.feedforward(self.second(h))

        class PreLNStack(nn.Module):
            def __init__(self, width, blocks, build_norm):
                super().__init__()
                self.layers = nn.Sequential(
                    *[Block(width, *block, build_norm) for block in blocks], build_norm(width)
                )

            def forward(self, x):
                return self.layers(x)
        """),
    ),
    (
        "preln_block",
        "copies_of_a_norm",
        IMPORTS
        + dedent("""
        from copy import deepcopy

        class PreLNStack(nn.Module):
            def __init__(self, width, blocks, build_norm):
                super().__init__()
                norm = build_norm(width)
                self.f = nn.ModuleList(f for block in blocks for f in block)
                self.n = nn.ModuleList(deepcopy(norm) for _ in self.f)
                self.final = deepcopy(norm)

            def forward(self, x):
                for f, n in zip(self.f, self.n):
                    x = x + f(n(x))
                return self.final(x)
        """),
    ),
    (
        "postln_block",
        "nested_lists",
        IMPORTS
        + dedent("""
        class PostLNStack(nn.Module):
            def __init__(self, width, blocks, build_norm):
                super().__init__()
                self.blocks = nn.ModuleList(
                    nn.ModuleDict(
                        {"a": a, "f": f, "n": build_norm(width), "m": build_norm(width)}
                    )
                    for a, f in blocks
                )

            def forward(self, x):
                for block in self.blocks:
                    x = block["n"](block["a"](x) + x)
                    x = block["m"](block["f"](x) + x)
                return x
        """),
    ),
    (
        "qk_norm",
        "einsum_and_tril",
        IMPORTS
        + dedent("""
        def attention_weights(q, k, q_gain, k_gain, eps):
            d = q.size(-1)
            q, k = (F.rms_norm(z, (d,), g, eps) for z, g in ((q, q_gain), (k, k_gain)))
            s = torch.einsum("bhqd,bhkd->bhqk", q, k) * d**-0.5
            past = torch.tril(torch.ones(s.shape[-2:], dtype=s.dtype))
            e = (s - s.amax(-1, keepdim=True)).exp() * past
            return e / e.sum(-1, keepdim=True)
        """),
    ),
    (
        "deepnorm_init",
        "loop_and_tensors",
        IMPORTS
        + dedent("""
        import math

        def deepnorm_constants(depth):
            return math.sqrt(math.sqrt(2 * depth)), torch.tensor(8.0 * depth).double() ** -0.25

        def scale_weights(weights, depth):
            result = {}
            for name in weights:
                result[name] = weights[name].clone()
                if name not in ("query", "key"):
                    result[name] *= float(deepnorm_constants(depth)[1])
            return result
        """),
    ),
    (
        "find_the_leak",
        "by_many_suffixes",
        IMPORTS
        + dedent("""
        def sees_future(function, x):
            y = function(x)
            for t in range(x.size(1) - 1):
                z = x.clone()
                z[0, t + 1 :] = z[0, t + 1 :].flip(0) * 50 - 7
                if not torch.allclose(function(z)[0, : t + 1], y[0, : t + 1]):
                    return True
            return False
        """),
    ),
    (
        "beat_rmsnorm",
        "mean_of_absolute_values",
        IMPORTS
        + dedent("""
        class MyNorm(nn.Module):
            def __init__(self, width):
                super().__init__()
                self.gain = nn.Parameter(torch.ones(width))

            def forward(self, x):
                return x * 0.8 / (x.abs().mean(-1, keepdim=True) + 1e-5) * self.gain
        """),
    ),
    (
        "beat_rmsnorm",
        "computed_in_fp32",
        IMPORTS
        + dedent("""
        class MyNorm(nn.Module):
            def __init__(self, width):
                super().__init__()
                self.gain = nn.Parameter(torch.ones(width))

            def forward(self, x):
                w = x.float()
                y = w * 0.8 / (w.abs().mean(-1, keepdim=True) + 1e-5)
                return y.type_as(x) * self.gain
        """),
    ),
]
