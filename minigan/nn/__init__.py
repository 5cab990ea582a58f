"""Floor 3: modules, layers and initialisers."""

from minigan.nn import init
from minigan.nn.layers import (
    ELU,
    GELU,
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Embedding,
    Flatten,
    GlobalAvgPool2d,
    GroupNorm,
    InstanceNorm2d,
    Lambda,
    LayerNorm,
    LeakyReLU,
    Linear,
    LogSoftmax,
    MaxPool2d,
    PixelShuffle,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    Upsample,
)
from minigan.nn.module import Module, ModuleList, Parameter, Sequential
from minigan.nn.spectral import SpectralNorm

__all__ = [name for name in dir() if not name.startswith("_")]
