"""Self-attention over the cells of a map, as published: Attention, PSABlock, C2PSA (YOLO26).

Unusual: queries and keys have half the width of values; the channels of `qkv` are interleaved per head
(q, k, v of head 0, then of head 1, ...); the position term is a depthwise convolution of the values. Only the
first convolution of the feed-forward part has an activation. Cells are handled in channels-last order, in
which the split into heads is a view.

Dimensions: B batch, C channels, H W height and width, N = H W cells, h heads.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.nn.conv import Conv
from holdfast.nn.join import join


class Attention(nn.Module):
    """Multi-head attention between all cells: (B, C, H, W) -> (B, C, H, W).

    Args:
        c: channels, a multiple of twice `heads`.
        heads: attention heads.
    """

    def __init__(self, c: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.value_width = c // heads
        self.key_width = self.value_width // 2
        self.qkv = Conv(c, c + 2 * heads * self.key_width, act=False)
        self.proj = Conv(c, c, act=False)
        self.pe = Conv(c, c, 3, groups=c, act=False)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        qkv = self.qkv(x).permute(0, 2, 3, 1).reshape(b, h * w, self.heads, -1)  # (B, N, h, 2k + v)
        q, k, v = qkv.split((self.key_width, self.key_width, self.value_width), 3)
        mixed = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        mixed = mixed.transpose(1, 2).reshape(b, h, w, c).permute(0, 3, 1, 2)  # (B, C, H, W)
        position = self.pe(v.reshape(b, h, w, c).permute(0, 3, 1, 2))
        out: Tensor = self.proj(mixed + position)
        return out


class PSABlock(nn.Module):
    """Attention, then two 1x1 convolutions, each with a residual: (B, c, H, W) -> (B, c, H, W)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.attn = Attention(c, heads=max(c // 64, 1))
        self.ffn = nn.Sequential(Conv(c, 2 * c), Conv(2 * c, c, act=False))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        out: Tensor = x + self.ffn(x)
        return out


class C2PSA(nn.Module):
    """Half of the width through `depth` attention blocks, half past them: (B, c, H, W) -> (B, c, H, W)."""

    def __init__(self, c: int, *, depth: int) -> None:
        super().__init__()
        half = c // 2
        self.cv1 = Conv(c, 2 * half)
        self.cv2 = Conv(2 * half, c)
        self.m = nn.Sequential(*(PSABlock(half) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.cv1(x).chunk(2, 1)
        out: Tensor = self.cv2(join((a, self.m(b))))
        return out
