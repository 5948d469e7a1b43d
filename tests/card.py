"""A CUDA card that is none: it computes on the CPU and checks who waits for whom.

Inside ``imitated_card(monkeypatch)`` tensors can be put on ``cuda:0``. What a real card
would only punish now and then is noted in ``card.faults``, each time:

* *order*: work on one stream that reads or writes what another stream, or the host, has
  not finished with, as nothing waits for it in between (vector clocks);
* *one recording at a time*: while a graph is recorded, nobody may wait for the whole
  card, with which recording begins, nor give torch's unused memory back, nor use an
  operation for the first time (its code is loaded, which may wait for the card); the
  thread that records may wait for nothing at all, nor may any other thread unless the
  recording was begun as ``"thread_local"``;
* *recorded work does not run*: the output of a recording is undefined (here: not a
  number) until the graph is replayed, which runs the same operations again;
* *memory*: a pass that holds more than ``memory`` bytes fails, and what a traceback
  holds counts; what torch keeps per stream counts as ``reserved``;
* *place*: numbers of the host and of the card do not mix;
* *waits*: every place where the host must wait for the card is counted, by the line of
  the package that was running: numbers read on the host, shapes that depend on values,
  copies that are not pinned.

Not imitated: kernels that err, cuDNN's choices, real time.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter, defaultdict
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from itertools import count
from pathlib import Path

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

HOST = "host"
DEFAULT = 0
READS = {"item", "_local_scalar_dense", "is_nonzero", "equal"}
"""Operations whose result is a number on the host."""
SHAPES = {
    *("nonzero", "masked_select", "_unique", "_unique2", "unique_dim"),
    *("unique_consecutive", "bincount", "histc", "repeat_interleave"),
}
"""Operations whose result has a shape that depends on values, or that look at them."""
INDEXES = {"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_"}
"""Operations that look for what a mask chooses."""
BETWEEN = {"copy_", "_to_copy", "_has_compatible_shallow_copy_type"}
"""Operations that may take numbers of both places."""
CLIPS = "torch.nn.utils.clip_grad"
BUILDERS = {"tensor", "as_tensor", "asarray", "from_numpy"}
"""Makers of tensors from numbers of the host."""


@dataclass
class Kept:
    """A storage on the card, or pinned: who used it, and when."""

    ref: StorageWeakRef
    where: str
    stream: int
    size: int
    written: tuple[object, int] | None = None
    read: dict[object, int] = field(default_factory=dict)


class Card:
    """The state of the card, and everything that is patched into torch."""

    def __init__(
        self,
        memory: float = float("inf"),
        capability=(9, 0),
        free: int = 2**34,
        *,
        weighs: bool = True,  # after every operation, which takes most of the time
    ) -> None:
        self.memory, self.capability, self.free = memory, capability, free
        self.weighs = weighs
        self.faults: list[str] = []
        self.clocks: dict[object, Counter] = defaultdict(Counter)
        self.kept: dict[int, Kept] = {}
        self.peaks: Counter = Counter()
        self.left: list[int] = []  # bytes in use at each emptying of torch's cache
        self.streams = self.spins = 0
        self.waits: Counter = Counter()  # of the host, by the line of ours
        self.sends: Counter = Counter()  # copies to the card, likewise
        self.recording: Recording | None = None
        self.loaded: set[str] = set()  # operations whose code lies on the card
        self.recorded: list[tuple[int, ...]] = []
        self.numbers = count(1)
        self.mine = threading.local()
        self.lock = threading.RLock()

    # What tests ask.
    @property
    def reserved(self) -> int:
        """Bytes that torch would keep: the most that each stream ever held."""
        return sum(self.peaks.values())

    def live(self) -> Counter:
        """Bytes in use, by the stream that they were taken on."""
        found: Counter = Counter()
        with self.lock:
            for key, one in list(self.kept.items()):
                if one.ref.expired():
                    del self.kept[key]
                elif one.where == "cuda":
                    found[one.stream] += one.size
        return found

    def fault(self, words: str) -> None:
        self.faults.append(words)

    # Storages.
    def find(self, tensor: torch.Tensor) -> Kept | None:
        with self.lock:
            one = self.kept.get(tensor.untyped_storage()._cdata)
            return None if one is None or one.ref.expired() else one

    def keep(self, tensor: torch.Tensor, where: str) -> Kept:
        storage = tensor.untyped_storage()
        with self.lock:
            one = Kept(StorageWeakRef(storage), where, self.current(), storage.nbytes())
            self.kept[storage._cdata] = one
        return one

    def is_here(self, tensor: object) -> bool:
        if not isinstance(tensor, torch.Tensor):
            return False
        one = self.find(tensor)
        return one is not None and one.where == "cuda"

    def fill(self) -> None:
        live = self.live()
        for stream, held in live.items():
            self.peaks[stream] = max(self.peaks[stream], held)
        if sum(live.values()) > self.memory:
            msg = "CUDA out of memory. Tried to allocate some more."
            raise torch.OutOfMemoryError(msg)

    # Order.
    def current(self) -> int:
        return getattr(self.mine, "stream", DEFAULT)

    def used(self, one: Kept, actor: object, *, writes: bool, what: str) -> None:
        """Note a use, and find fault if an earlier one may still be going on."""
        with self.lock:
            clock = self.clocks[actor]
            before = dict(one.read) if writes else {}
            if one.written is not None:
                before[one.written[0]] = max(
                    one.written[1], before.get(one.written[0], 0)
                )
            for other, then in before.items():
                if clock[other] < then:
                    verb = "writes" if writes else "reads"
                    self.fault(f"{what} on {actor} {verb} before {other} is done")
            clock[actor] += 1
            if writes:
                one.written, one.read = (actor, clock[actor]), {}
            else:
                one.read[actor] = clock[actor]

    def launch(self) -> int:
        """Return the current stream, which now knows all that the host knows."""
        stream = self.current()
        with self.lock:
            self.clocks[stream] |= self.clocks[HOST]
        return stream

    def wait(self, clock: Counter) -> None:
        with self.lock:
            self.clocks[HOST] |= clock

    def wait_here(self, what: str) -> None:
        """Let the host wait for the current stream, as plain copies do."""
        self.waits[who_called()] += 1
        self.refuse(f"{what} waited for stream {self.current()}")
        self.wait(self.clocks[self.current()])

    def refuse(self, what: str, *, everywhere: bool = False) -> None:
        """Fail, and break the recording, if one is going on that forbids this.

        What the recording thread itself does wrong is no fault: it hears of it.
        """
        recording = self.recording
        if recording is None:
            return
        is_own = recording.thread == threading.get_ident()
        if not (is_own or everywhere or recording.mode == "global"):
            return
        recording.is_broken = True
        words = f"{what} while a graph was recorded"
        if not is_own:
            self.fault(words)
        msg = f"CUDA error: {words}"
        raise RuntimeError(msg)

    def load(self, operation: str) -> None:
        """Load the code of an operation, the first time."""
        if operation not in self.loaded:
            self.refuse(f"the code of {operation} was loaded", everywhere=True)
            self.loaded.add(operation)

    def synchronize(self, device=None) -> None:
        self.waits[who_called()] += 1
        self.refuse("the whole card was waited for", everywhere=True)
        with self.lock:
            for clock in list(self.clocks.values()):
                self.wait(clock)

    def empty_cache(self) -> None:
        self.refuse("unused memory was given back", everywhere=True)
        self.peaks = self.live()
        self.left.append(sum(self.peaks.values()))

    @contextmanager
    def on(self, stream):
        before, self.mine.stream = self.current(), stream.number
        try:
            yield
        finally:
            self.mine.stream = before

    @contextmanager
    def record(self, made, pool=None, stream=None, capture_error_mode="global"):
        """Record what is done inside, as ``torch.cuda.graph`` does."""
        self.synchronize()
        self.empty_cache()
        recording = self.recording = Recording(stream.number, capture_error_mode)
        try:
            with self.on(stream):
                yield
        finally:
            self.recording = None
        if recording.is_broken:
            msg = "CUDA error: operation failed due to a previous error during capture"
            raise RuntimeError(msg)
        made.steps = recording.steps
        with self.on(stream):
            for _, args, _, found in recording.steps:
                undefined(args, found)
        self.recorded.append(tuple(recording.steps[0][1][0].shape))

    @contextmanager
    def inside(self):
        """Imitate the card in this thread."""
        with Names(self), Operations(self):
            yield


class Recording:
    """What is being recorded."""

    def __init__(self, stream: int, mode: str) -> None:
        self.stream, self.mode, self.thread = stream, mode, threading.get_ident()
        self.steps: list[tuple] = []
        self.is_broken = False


class Names(TorchFunctionMode):
    """Reads ``cuda`` and ``pin_memory`` out of calls."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, card = dict(kwargs or {}), self.card
        name = getattr(func, "__name__", "")
        if func == torch.Tensor.device.__get__:
            here = card.is_here(args[0])
            return torch.device("cuda:0") if here else func(*args)
        if func == torch.Tensor.is_cuda.__get__:
            return card.is_here(args[0])
        if name == "numpy":
            return self.as_array(func, args, kwargs)
        if name == "tolist" and card.is_here(args[0]):
            card.wait_here(name)
            with card_off(card):
                return func(*args, **kwargs)
        if name == "backward" and card.is_here(args[0]):
            with self.laying():  # gradients that nobody gave are zeros there
                return func(*args, **kwargs)
        if name in ("to", "cuda", "cpu", "_to"):
            return self.moved(func, args, kwargs)
        return self.placed(func, args, kwargs)

    def placed(self, func, args, kwargs):
        """Return a new tensor, on the card or in pinned memory if that is asked for."""
        card, name = self.card, getattr(func, "__name__", "")
        if name == "__deepcopy__" and card.is_here(args[0]):
            return self.laid(func(*args, **kwargs), name)
        if kwargs.pop("pin_memory", False):
            found = func(*args, **kwargs)
            card.keep(found, "pinned")
            return found
        if name == "pin_memory":
            found = args[0].clone()
            card.keep(found, "pinned")
            return found
        if "cuda" in str(kwargs.get("device", "")):
            kwargs["device"] = "cpu"
            if name in BUILDERS:
                card.wait_here(name)
            with self.laying():
                return self.laid(func(*args, **kwargs), name)
        return func(*args, **kwargs)

    @contextmanager
    def laying(self):
        """New tensors lie on the card."""
        before = getattr(self.card.mine, "lays", False)
        self.card.mine.lays = True
        try:
            yield
        finally:
            self.card.mine.lays = before

    def laid(self, found, name):
        """Return a tensor that no operation has put on the card, but another way."""
        if not self.card.is_here(found):
            one = self.card.keep(found, "cuda")
            self.card.used(one, self.card.launch(), writes=True, what=name)
        return found

    def as_array(self, func, args, kwargs):
        one = self.card.find(args[0])
        if one is not None and one.where == "cuda":
            msg = "can't convert cuda:0 device type tensor to numpy."
            raise TypeError(msg)
        if one is not None:  # the host may read, and may write
            self.card.used(one, HOST, writes=True, what="numpy")
        return func(*args, **kwargs)

    def moved(self, func, args, kwargs):
        card, tensor = self.card, args[0]
        named = [*args[1:], kwargs.get("device")]
        places = [str(p) for p in named if isinstance(p, str | torch.device)]
        name = func.__name__
        if name in ("cuda", "cpu"):
            places = [name]
        elif not places:
            return func(*args, **kwargs)
        wants, here = "cuda" in places[0], card.is_here(tensor)
        dtype = kwargs.get("dtype") or next(
            (p for p in args[1:] if isinstance(p, torch.dtype)), tensor.dtype
        )
        layout = kwargs.get("memory_format") or torch.preserve_format
        if wants == here:
            return tensor.to(dtype, memory_format=layout)
        source = card.find(tensor)
        flies = kwargs.get("non_blocking", False) and source is not None
        card.mine.flies = flies
        try:
            with self.laying() if wants else card_off(card):
                found = torch.empty_like(tensor, dtype=dtype, memory_format=layout)
                return found.copy_(tensor)
        finally:
            card.mine.flies = False


@contextmanager
def card_off(card: Card):
    """New tensors lie with the host."""
    before, card.mine.lays = getattr(card.mine, "lays", False), None
    try:
        yield
    finally:
        card.mine.lays = before


class Operations(TorchDispatchMode):
    """Notes what every operation reads and writes, and on which stream."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, card = kwargs or {}, self.card
        taken = [t for t in tree_flatten((args, kwargs))[0] if is_tensor(t)]
        lays = getattr(card.mine, "lays", False)
        here = [t for t in taken if card.is_here(t)]
        if not here and not lays and not any(card.find(t) for t in taken):
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if here or lays:
            card.load(name)
        if here and name not in BETWEEN:
            self.check_places(name, taken)
        if here and waits(name, args):
            card.wait_here(name)
        written = set(written_ones(func, args, kwargs))
        stream = card.launch()
        self.note_inputs(name, func, taken, written, stream)
        found = func(*args, **kwargs)
        self.note_outputs(name, taken, found, stream, here=bool(here), lays=lays)
        if name == "copy_" and card.is_here(args[0]) and not card.is_here(args[1]):
            card.sends[who_called()] += 1
        if name == "copy_" and not getattr(card.mine, "flies", False):
            self.end_copy(taken, kwargs, args)
        recording = card.recording
        if recording is not None and recording.stream == stream:
            recording.steps.append((func, args, kwargs, found))
        return found

    def check_places(self, name, taken) -> None:
        for tensor in taken:
            if not self.card.is_here(tensor) and tensor.dim() > 0:
                self.card.fault(f"{name} mixes the host's numbers and the card's")
                msg = "Expected all tensors to be on the same device"
                raise RuntimeError(msg)

    def note_inputs(self, name, func, taken, written, stream) -> None:
        if not written and is_view(func):
            return
        for tensor in taken:
            one = self.card.find(tensor)
            if one is not None:
                writes = id(tensor) in written
                self.card.used(one, stream, writes=writes, what=name)

    def note_outputs(self, name, taken, found, stream, *, here, lays) -> None:
        old = storages(taken)
        for tensor in tree_flatten(found)[0]:
            if not is_tensor(tensor) or tensor.untyped_storage()._cdata in old:
                continue
            if lays is None or not (here or lays):
                continue
            one = self.card.keep(tensor, "cuda")
            if not name.startswith(("empty", "new_empty")):
                self.card.used(one, stream, writes=True, what=name)
        if self.card.weighs:
            self.card.fill()

    def end_copy(self, taken, kwargs, args) -> None:
        """Wait, as every copy between host and card does that is not told otherwise."""
        places = {self.card.is_here(t) for t in taken[:2]}
        told = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
        pinned = all(self.card.find(t) is not None for t in taken[:2])
        if len(places) == 2 and not (told and pinned):
            self.card.wait_here("a copy")


def is_tensor(thing: object) -> bool:
    return isinstance(thing, torch.Tensor)


def storages(things) -> set[int]:
    return {t.untyped_storage()._cdata for t in tree_flatten(things)[0] if is_tensor(t)}


def waits(name: str, args) -> bool:
    """Whether the host must wait until an operation on the card has been done."""
    if name in READS or name in SHAPES:
        return True
    chosen = args[1] if name in INDEXES else ()
    return any(is_tensor(t) and t.dtype in (torch.bool, torch.uint8) for t in chosen)


def is_view(func) -> bool:
    return any(r.alias_info is not None for r in func._schema.returns)


def written_ones(func, args, kwargs):
    for k, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = args[k] if k < len(args) else kwargs.get(argument.name)
        for tensor in tree_flatten(value)[0]:
            if is_tensor(tensor):
                yield id(tensor)


class Stream:
    def __init__(self, card: Card, device=None) -> None:
        self.card, self.number = card, next(card.numbers)
        card.streams += 1

    def synchronize(self) -> None:
        self.card.spins += 1
        self.card.waits[who_called()] += 1
        self.card.refuse(f"stream {self.number} was waited for")
        self.card.wait(self.card.clocks[self.number])


class Event:
    def __init__(self, card: Card, *, blocking=False) -> None:
        self.card, self.blocking = card, blocking
        self.clock: Counter = Counter()

    def record(self, stream: Stream) -> None:
        self.clock = Counter(self.card.clocks[stream.number])

    def synchronize(self) -> None:
        self.card.spins += not self.blocking
        self.card.waits[who_called()] += 1
        self.card.refuse("an event was waited for")
        self.card.wait(self.clock)


class Graph:
    steps: list[tuple]

    def replay(self) -> None:
        for func, args, kwargs, found in self.steps:
            old = storages(args)
            both = (tree_flatten(t)[0] for t in (func(*args, **kwargs), found))
            for new, kept in zip(*both, strict=True):
                if is_tensor(kept) and kept.untyped_storage()._cdata not in old:
                    kept.copy_(new)


@contextmanager
def imitated_card(monkeypatch, **options):
    """Yield a :class:`Card` that torch takes for a real one, in all threads."""
    card = Card(**options)
    run = threading.Thread.run

    def run_inside(thread) -> None:
        with card.inside():
            run(thread)

    patches = {
        "Stream": partial(Stream, card),
        "Event": partial(Event, card),
        "CUDAGraph": Graph,
        "graph": card.record,
        "stream": card.on,
        "synchronize": card.synchronize,
        "empty_cache": card.empty_cache,
        "graph_pool_handle": lambda: (0, next(card.numbers)),
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "is_bf16_supported": lambda **_: True,
        "get_device_name": lambda device=None: "Imitation",
        "device": lambda device: nullcontext(),
        "get_rng_state": lambda device=None: torch.zeros(1, dtype=torch.uint8),
        "set_rng_state": lambda state, device=None: None,
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: card.fault("every card was seeded"),
        "mem_get_info": lambda device=None: (card.free, card.free),
        "get_device_capability": lambda device=None: card.capability,
    }
    with monkeypatch.context() as patched:
        for name, value in patches.items():
            patched.setattr(torch.cuda, name, value)
        patched.setattr(threading.Thread, "run", run_inside)
        for user in map(import_module, ("torch.optim.optimizer", CLIPS)):
            name = "_group_tensors_by_device_and_dtype"
            patched.setattr(user, name, partial(grouped, card, getattr(user, name)))
        # It asks the real card whether it is recording.
        check = "_accelerator_graph_capture_health_check"
        patched.setattr(torch.optim.Optimizer, check, lambda _: None)
        with card.inside():
            yield card


def grouped(card: Card, group, tensors, *args, **kwargs):
    """Return tensors by device and type, as torch's compiled code does."""
    there = torch.device("cuda:0")
    return {
        (there if card.is_here(found[0][0]) else device, kind): (found, places)
        for (device, kind), (found, places) in group(tensors, *args, **kwargs).items()
    }


def who_called() -> str:
    """Return the line of this package that is being run, or ''."""
    frame = sys._getframe()
    while frame is not None:
        path = frame.f_code.co_filename
        if "napari_histodistill" in path:
            return f"{Path(path).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def undefined(args, found) -> None:
    """Make the output of recorded work undefined, as on a card that did not run it."""
    old = storages(args)

    def spoil(tensor):
        if is_tensor(tensor) and tensor.untyped_storage()._cdata not in old:
            tensor.fill_(float("nan") if tensor.is_floating_point() else 0)
        return tensor

    tree_map(spoil, found)
