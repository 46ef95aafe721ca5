"""Right answers to assignment 1 as other people write them: by question, then by style."""

MLP = """
class Mlp(nn.Module):
    def __init__(self, dim, ratio):
        super().__init__()
        h = int(ratio * dim)
        self.norm, self.fc1, self.pos, self.fc2, self.act = (
            Norm(dim),
            nn.Conv2d(dim, h, 1),
            nn.Conv2d(h, h, 3, padding="same", groups=h),
            nn.Conv2d(h, dim, 1),
            nn.GELU(),
        )

    def forward(self, x):
        x = self.act(self.fc1(self.norm(x)))
        x = x + self.act(self.pos(x))
        return self.fc2(x)


"""
ASSIGNMENT_1: dict[str, dict[str, str]] = {
    "1.1": {
        "var_mean": """
def layer_norm(x, weight, bias, eps=1e-6):
    variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
    return torch.addcmul(
        bias.view(1, -1, 1, 1), (x - mean) * torch.rsqrt(variance + eps), weight.view(1, -1, 1, 1)
    )
""",
        "std_mean loops": """
def layer_norm(x, weight, bias, eps=1e-6):
    out = torch.empty_like(x)
    for n in range(x.shape[0]):
        for h in range(x.shape[2]):
            for w in range(x.shape[3]):
                s, m = torch.std_mean(x[n, :, h, w], correction=0)
                out[n, :, h, w] = (x[n, :, h, w] - m) / (s**2 + eps) ** 0.5 * weight + bias
    return out
""",
        "float64 einsum": """
def layer_norm(x, weight, bias, eps=1e-6):
    z = x.double().permute(0, 2, 3, 1)
    C = z.shape[-1]
    mu = torch.einsum("nhwc->nhw", z) / C
    z = z - mu[..., None]
    var = torch.einsum("nhwc,nhwc->nhw", z, z) / C
    return (
        torch.einsum("nhwc,c->nchw", z / torch.sqrt(var[..., None] + eps), weight.double())
        + bias.double()[None, :, None, None]
    ).to(x.dtype)
""",
        "numpy": """
import numpy as np


def layer_norm(x, weight, bias, eps=1e-6):
    a = x.numpy()
    m, v = a.mean(1, keepdims=True), a.var(1, keepdims=True)
    return torch.from_numpy(
        (a - m) / np.sqrt(v + eps) * weight.numpy()[:, None, None] + bias.numpy()[:, None, None]
    )
""",
        "moments in double, float64 out": """
class Moments:
    def __init__(self, x):
        self.mean = x.mean(1, True)
        self.var = (x**2).mean(1, True) - self.mean**2


def layer_norm(x, weight, bias, eps=1e-6):
    x = x.double()
    m = Moments(x)
    return (x - m.mean) / (m.var + eps).sqrt() * weight.reshape(-1, 1, 1) + bias.reshape(-1, 1, 1)
""",
    },
    "1.2": {
        "roll and masks": """
def depthwise(x, kernel, bias):
    H, W = x.shape[-2:]
    kh, kw = kernel.shape[-2:]
    rows, cols = torch.arange(H)[:, None], torch.arange(W)[None]
    out = 0
    for i in range(kh):
        for j in range(kw):
            dy, dx = i - kh // 2, j - kw // 2
            mask = (rows + dy >= 0) & (rows + dy < H) & (cols + dx >= 0) & (cols + dx < W)
            out = out + torch.roll(x, (-dy, -dx), (2, 3)) * mask * kernel[None, :, i, j, None, None]
    return out + bias[None, :, None, None]
""",
        "stack and einsum": """
def depthwise(x, kernel, bias):
    N, C, H, W = x.shape
    _, kh, kw = kernel.shape
    padded = torch.nn.functional.pad(x, [kw // 2] * 2 + [kh // 2] * 2, mode="constant", value=0.0)
    taps = torch.stack([padded[..., i : i + H, j : j + W] for i in range(kh) for j in range(kw)], dim=-1)
    return torch.einsum("nchwk,ck->nchw", taps, kernel.flatten(1)) + bias.view(-1, 1, 1)
""",
        "index gather": """
def depthwise(x, kernel, bias):
    N, C, H, W = x.shape
    _, kh, kw = kernel.shape
    z = x.new_zeros(N, C, H + kh - 1, W + kw - 1)
    z[:, :, kh // 2 : kh // 2 + H, kw // 2 : kw // 2 + W] = x
    r = torch.arange(H)[:, None] + torch.arange(kh)
    c = torch.arange(W)[:, None] + torch.arange(kw)
    windows = z[:, :, r[:, None, :, None], c[None, :, None, :]]
    return (windows * kernel[None, :, None, None]).sum((-1, -2)) + bias[None, :, None, None]
""",
        "in place sums, comprehension": """
def shifted(padded, i, j, size):
    return padded.narrow(2, i, size[0]).narrow(3, j, size[1])


def depthwise(x, kernel, bias):
    kh, kw = kernel.shape[1:]
    p = nn.ZeroPad2d((kw // 2, kw // 2, kh // 2, kh // 2))(x)
    out = torch.zeros_like(x)
    for i in range(kh):
        for j in range(kw):
            out += shifted(p, i, j, x.shape[2:]) * kernel[:, i, j].unsqueeze(-1).unsqueeze(-1)
    out += bias[:, None, None]
    return out
""",
        "matrices of shifts": """
def depthwise(x, kernel, bias):
    H, W = x.shape[2:]
    kh, kw = kernel.shape[1:]
    S = [
        torch.diag(torch.ones(max(0, H - abs(d))), d) if abs(d) < H else torch.zeros(H, H)
        for d in range(-(kh // 2), kh // 2 + 1)
    ]
    T = [
        torch.diag(torch.ones(max(0, W - abs(d))), d) if abs(d) < W else torch.zeros(W, W)
        for d in range(-(kw // 2), kw // 2 + 1)
    ]
    return (
        sum(kernel[:, i, j, None, None] * (S[i] @ x @ T[j].T) for i in range(kh) for j in range(kw))
        + bias[:, None, None]
    )
""",
    },
    "1.3": {
        "same padding, functional": """
class Norm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        return layer_norm(x, self.weight, self.bias)


class ConvMod(nn.Module):
    def __init__(self, dim, kernel_size=11):
        super(ConvMod, self).__init__()
        self.norm = Norm(dim)
        self.v = nn.Conv2d(dim, dim, kernel_size=1)
        self.a = nn.Sequential(
            nn.Conv2d(dim, dim, 1),
            nn.GELU(approximate="none"),
            nn.Conv2d(dim, dim, kernel_size, padding="same", groups=dim),
        )
        self.proj = nn.Conv2d(dim, dim, (1, 1))

    def forward(self, x):
        z = self.norm(x)
        return F.conv2d(torch.mul(self.a(z), self.v(z)), self.proj.weight, self.proj.bias)
""",
        "sequential of OrderedDict, subclassed layers": """
class Norm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        return layer_norm(x, self.weight, self.bias)


from collections import OrderedDict


class Point(nn.Conv2d):
    def __init__(self, dim):
        super().__init__(dim, dim, 1)


class Gelu(nn.Module):
    def forward(self, x):
        return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


class ConvMod(nn.Module):
    def __init__(self, dim, kernel_size=11):
        super().__init__()
        self.a = nn.Sequential(
            OrderedDict(
                [
                    ("0", Point(dim)),
                    ("1", Gelu()),
                    ("2", nn.Conv2d(dim, dim, kernel_size, 1, kernel_size // 2, 1, dim)),
                ]
            )
        )
        self.add_module("v", Point(dim))
        self.add_module("proj", Point(dim))
        self.norm = Norm(dim)

    def forward(self, x):
        z = self.norm(x)
        a = z
        for layer in self.a:
            a = layer(a)
        return self.proj(a * self.v(z))
""",
        "linear over channels": """
class Norm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        return layer_norm(x, self.weight, self.bias)


class LayerNormC(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        return F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, 1e-6).permute(
            0, 3, 1, 2
        )


class DW(nn.Module):
    def __init__(self, dim, k):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dim, 1, k, k))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        return depthwise(x, self.weight[:, 0], self.bias)


class ConvMod(nn.Module):
    def __init__(self, dim, kernel_size=11):
        super().__init__()
        self.norm = LayerNormC(dim)
        self.v = nn.Conv2d(dim, dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)
        self.a = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.GELU(), DW(dim, kernel_size))

    def forward(self, x):
        z = self.norm(x)
        m = torch.einsum("nchw,nchw->nchw", self.a(z), self.v(z))
        return torch.einsum("oc,nchw->nohw", self.proj.weight[:, :, 0, 0], m) + self.proj.bias[:, None, None]
""",
    },
    "1.4": {
        "mlp module act": MLP
        + """
class Block(nn.Module):
    def __init__(self, dim, kernel_size=11, ratio=2.0):
        super().__init__()
        self.convmod = ConvMod(dim, kernel_size)
        self.mlp = Mlp(dim, ratio)

    def forward(self, x):
        for branch in (self.convmod, self.mlp):
            x = x + branch(x)
        return x
""",
        "one class, sums in place on copies": """
class Mlp(nn.Sequential):
    def __init__(self, dim, ratio):
        super().__init__()
        h = int(dim * ratio)
        for name, m in dict(
            norm=Norm(dim),
            fc1=nn.Conv2d(dim, h, 1),
            pos=nn.Conv2d(h, h, 3, 1, 1, groups=h),
            fc2=nn.Conv2d(h, dim, 1),
        ).items():
            self.add_module(name, m)

    def forward(self, x):
        h = F.gelu(self[1](self[0](x)))
        return self[3](F.gelu(self[2](h)) + h)


class Block(nn.Module):
    def __init__(self, dim, kernel_size=11, ratio=2.0):
        super().__init__()
        self.mlp = Mlp(dim, ratio)
        self.convmod = ConvMod(dim, kernel_size)

    def forward(self, x):
        y = x.clone()
        y += self.convmod(x)
        z = y.clone()
        z += self.mlp(y)
        return z
""",
        "base class residual": MLP
        + """
class Residual(nn.Module):
    def step(self, x, f):
        return torch.add(x, f(x))


class Block(Residual):
    def __init__(self, dim, kernel_size=11, ratio=2.0):
        nn.Module.__init__(self)
        self.convmod = ConvMod(dim, kernel_size=kernel_size)
        self.mlp = Mlp(dim, ratio=ratio)

    def forward(self, x):
        return self.step(self.step(x, self.convmod), self.mlp)
""",
    },
    "1.5": {
        "lambda": """
block_parameters = lambda c, k, r: (
    4 * c + 3 * c * (c + 1) + c * (k * k + 1) + int(c * r) * (2 * c + 1) + 10 * int(c * r) + c
)
share_of_depthwise = lambda c, k, r: (c * k**2 + c) / block_parameters(c, k, r)
""",
        "tensors": """
def block_parameters(dim, kernel_size, ratio):
    c, h = torch.tensor(dim), math.floor(dim * ratio)
    return c * 4 + 3 * (c * c + c) + c * kernel_size**2 + c + 2 * c * h + h + c + 10 * h


def share_of_depthwise(dim, kernel_size, ratio):
    return (dim * kernel_size**2 + dim) / block_parameters(dim, kernel_size, ratio).double()
""",
        "numpy": """
import numpy as np


def block_parameters(d, k, r):
    h = np.floor(d * r)
    return np.sum([2 * d, 3 * (d * d + d), d * k * k + d, 2 * d, d * h + h, 9 * h + h, h * d + d])


def share_of_depthwise(d, k, r):
    return np.float64(d * k * k + d) / block_parameters(d, k, r)
""",
    },
}
