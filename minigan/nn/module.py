"""Floor 3: modules, which hold parameters and buffers and know how to name them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from minigan.tensor import Tensor


class Parameter(Tensor):
    """A tensor that a module trains: it requires a gradient unless told not to."""

    def __init__(self, data: Any, requires_grad: bool = True, device: str | None = None) -> None:
        super().__init__(data, requires_grad=requires_grad, device=device)


class Module:
    """A function with parameters. Subclasses set attributes in `__init__` and write `forward`.

    Attributes that are a `Parameter` or a `Module` are found by looking; a tensor that is state
    but not trained (a running mean) is declared with `register_buffer`.
    """

    training = True

    def forward(self, *inputs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__}: forward is not written")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return self.forward(*inputs, **options)

    def __setattr__(self, name: str, value: Any) -> None:
        inside = value.values() if isinstance(value, dict) else value
        if isinstance(value, (list, tuple, dict)) and any(
            isinstance(v, (Module, Parameter)) for v in inside
        ):
            raise TypeError(
                f"{type(self).__name__}.{name}: modules or parameters in a plain "
                f"{type(value).__name__} would not be trained or saved: use nn.ModuleList or "
                "nn.Sequential, or an attribute for each"
            )
        object.__setattr__(self, name, value)

    def register_buffer(self, name: str, value: Tensor) -> None:
        """Make `value` an attribute that is saved with the module but not trained."""
        setattr(self, name, value)
        object.__setattr__(self, "_buffers", (*vars(self).get("_buffers", ()), name))

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the (name, module) attributes, in the order they were set."""
        return ((name, m) for name, m in vars(self).items() if isinstance(m, Module))

    def children(self) -> Iterator[Module]:
        """Yield the modules that are attributes."""
        return (module for _, module in self.named_children())

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it."""
        return (module for _, module in self.named_modules())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield this module and all below it with dotted names."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def _named(self, own: Callable[[Module], Iterator[str]]) -> Iterator[tuple[str, Tensor]]:
        for prefix, module in self.named_modules():
            for name in own(module):
                yield f"{prefix}.{name}" if prefix else name, getattr(module, name)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield (dotted name, parameter), this module's and those below; a shared one once."""
        seen = set()
        for name, parameter in self._named(
            lambda m: (n for n, value in vars(m).items() if isinstance(value, Parameter))
        ):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def parameters(self) -> list[Parameter]:
        """Return all parameters."""
        return [parameter for _, parameter in self.named_parameters()]

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (dotted name, buffer)."""
        return self._named(lambda module: iter(vars(module).get("_buffers", ())))

    def buffers(self) -> list[Tensor]:
        """Return all buffers."""
        return [buffer for _, buffer in self.named_buffers()]

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Freeze (False) or thaw the parameters; returns itself."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def to(self, device: str) -> Module:
        """Move parameters, their gradients, and buffers to "cpu" or "cuda"; returns itself.

        They stay the same tensors. So an optimiser made before goes on with them, and moves its
        own memory at its next step.

        Raises:
            DeviceError: no such device; nothing is moved then.
        """
        for _, tensor in self._state():
            tensor.to_(device)
        return self

    def train(self, mode: bool = True) -> Module:
        """Switch dropout and batch normalisation to training; returns itself."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Switch dropout off and batch normalisation to its running averages; returns itself."""
        return self.train(False)

    def apply(self, function: Callable[[Module], Any]) -> Module:
        """Call `function` on every module below and then on this one; returns itself."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return copies of parameters and buffers as host arrays, by dotted name."""
        return {name: t.numpy() for name, t in self._state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy a state_dict into the parameters and buffers.

        Raises:
            ValueError: anything missing, unexpected, of another shape or type of number. All of it
                is listed, and the module is left as it was.
        """
        own = dict(self._state())
        problems = [f"missing: {name} {own[name].shape}" for name in own if name not in state]
        problems += [f"unexpected: {name}" for name in state if name not in own]
        arrays = {name: np.asarray(state[name]) for name in own if name in state}
        for name, array in arrays.items():
            if array.shape != own[name].shape:
                problems.append(f"shape: {name} is {array.shape}, expected {own[name].shape}")
            elif array.dtype.kind not in "fiu":
                problems.append(f"type: {name} is {array.dtype}, expected {own[name].dtype}")
        if problems:
            listed = "\n  ".join(problems)
            raise ValueError(f"load_state_dict: {type(self).__name__} cannot take it:\n  {listed}")
        for name, array in arrays.items():
            tensor = own[name]
            tensor.data[...] = tensor.backend.from_host(array.astype(tensor.dtype))
            tensor.bump_version()

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.named_parameters()
        yield from self.named_buffers()

    def describe(self) -> str:
        """Return the constructor's arguments as they shall be printed."""
        return ""

    def __repr__(self) -> str:
        lines = [
            f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()
        ]
        body = "".join(f"\n  {line}" for line in lines) + ("\n" if lines else self.describe())
        return f"{type(self).__name__}({body})"


class ModuleList(Module):
    """Modules in a list: they are named by their numbers."""

    def __init__(self, *modules: Any) -> None:
        is_list = len(modules) == 1 and not isinstance(modules[0], Module)
        listed = list(modules[0]) if is_list else modules
        for module in listed:
            self.append(module)

    def append(self, module: Module) -> None:
        """Add a module at the end; TypeError for anything else."""
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__}: {module!r} is not a Module")
        setattr(self, str(len(self)), module)

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __getitem__(self, index: int | slice) -> Module:
        """Return one module, or for a slice a list (a Sequential) of the same modules."""
        found = list(self)[index]
        return type(self)(*found) if isinstance(index, slice) else found


class Sequential(ModuleList):
    """Modules one after another: the output of each is the input of the next."""

    def forward(self, x: Tensor) -> Tensor:
        for module in self:
            x = module(x)
        return x
